"""A fault at every step of what trigger and effect stores do: before or after, never between."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lash_store import EffectClaim, EffectStore, TriggerStore
from lash_store._stores.store import Store
from lash_store.effect.records import EffectError
from lash_store.errors import LashStoreError
from lash_store.testing import ManualClock, SequentialIds
from tests.support.databases import all_rows
from tests.support.faults import faulty
from tests.support.triggers import draft, occur, subscribe

ENVELOPE = {"x": 1}


def triggers(path: Path) -> TriggerStore:
    store = TriggerStore.open(path, clock=ManualClock(), ids=SequentialIds())
    for _ in range(3):
        subscribe(store)
    occur(store, 1, "known")
    old = occur(store, 2, "old")
    store.reserve_deliveries(old.occurrence_id)
    return store


def known(store: TriggerStore) -> str:
    return occur(store, 1, "known").occurrence_id


def effects(path: Path) -> EffectStore:
    store = EffectStore.open(path, owner_id="ann", clock=ManualClock(), ids=SequentialIds())
    store.begin_effect("s", "k", ENVELOPE)
    store.run("s", "done", ENVELOPE, lambda: 1)
    store.run("s", "done too", ENVELOPE, lambda: 2)
    return store


def held(store: EffectStore) -> EffectClaim:
    effect = store.list_effects(status="in_progress")[0]
    return EffectClaim("s", "k", effect.envelope_hash, "ann", "token-1", effect.expires_at_ms)


OPERATIONS: dict[str, tuple[Callable[[Path], Any], Callable[[Any], Any], Callable[[Any, Any], Any]]]
OPERATIONS = {
    "register_subscription": (triggers, lambda _: draft(), lambda s, d: s.register_subscription(d)),
    "cancel_subscription": (triggers, lambda _: "trigger:1", lambda s, h: s.cancel_subscription("one", h)),
    "delete_subscription": (triggers, lambda _: "trigger:1", lambda s, h: s.delete_subscription("one", h)),
    "delete_session": (triggers, lambda _: "one", lambda s, n: s.delete_session(n)),
    "record_occurrence": (triggers, lambda _: "new", lambda s, k: occur(s, 1, k)),
    "reserve_deliveries": (triggers, known, lambda s, o: s.reserve_deliveries(o)),
    "redeliver": (triggers, known, lambda s, o: s.redeliver(o)),
    "prune_occurrences": (
        triggers,
        lambda s: s.list_reserved_processes(2**60),
        lambda s, ids: s.prune_occurrences(2**60, started=ids),
    ),
    "begin_effect": (effects, lambda _: "new", lambda s, k: s.begin_effect("s", k, ENVELOPE)),
    "renew_effect": (effects, held, lambda s, claim: s.renew_effect(claim)),
    "finish_effect": (effects, held, lambda s, claim: s.finish_effect(claim, {"a": 1})),
    "fail_effect": (effects, held, lambda s, claim: s.fail_effect(claim, EffectError("c", "m"))),
    "abandon_effect": (effects, held, lambda s, claim: s.abandon_effect(claim)),
    "begin_sleep": (effects, lambda _: "z", lambda s, k: s.begin_sleep("s", k, 5)),
    "forget_scope": (effects, lambda _: "s", lambda s, n: s.forget_scope(n)),
    "prune_effects": (effects, lambda _: 2**60, lambda s, ms: s.prune_effects(ms)),
}  # fmt: skip


def fresh(make: Callable[[Path], Any], path: Path) -> Any:
    for leftover in path.parent.glob(f"{path.name}*"):
        leftover.unlink()
    return make(path)


def without_tokens(rows: Any) -> str:
    """Tokens count on with every try; where they stand does not change."""
    text = repr(rows)
    for number in range(20, 1, -1):
        text = text.replace(f"token-{number}", "TOKEN")
    return text


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_fault_at_every_statement(path: Path, name: str, when: str) -> None:
    make, arrange, act = OPERATIONS[name]
    clean = path.parent / "clean.db"
    store: Store[Any]
    with make(clean) as store:
        act(store, arrange(store))
    after = all_rows(clean)
    faults = 0
    for at in range(1, 30):
        with fresh(make, path) as store:
            argument = arrange(store)
            before = all_rows(path)
            with faulty(store, at, when) as cursor, suppress(LashStoreError):
                act(store, argument)
            if not cursor.fired:
                break
            faults += 1
            found = all_rows(path)
            assert found == before or without_tokens(found) == without_tokens(after)
            if found == before:
                act(store, argument)
                assert without_tokens(all_rows(path)) == without_tokens(after)
    assert faults >= 3  # begin, at least one statement, commit


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_fault_that_a_consumer_catches_inside_a_transaction(path: Path, name: str) -> None:
    make, arrange, act = OPERATIONS[name]
    for at in range(2, 30):
        with fresh(make, path) as store:
            argument = arrange(store)
            before = all_rows(path)
            with faulty(store, at, "before") as cursor, suppress(LashStoreError):
                with store.begin() as tx, suppress(LashStoreError):
                    act(tx, argument)
                if not cursor.fired:
                    break
            assert all_rows(path) == before


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_fault_at_every_statement_of_a_run(path: Path, when: str) -> None:
    """Whatever fails: the next run gets the one outcome, whoever brought it about."""
    faults = 0
    for at in range(1, 30):
        clock = ManualClock()
        for leftover in path.parent.glob(f"{path.name}*"):
            leftover.unlink()
        with EffectStore.open(path, clock=clock) as store:
            with faulty(store, at, when) as cursor, suppress(LashStoreError):
                store.run("s", "k", ENVELOPE, lambda: "first")
            if not cursor.fired:
                break
            faults += 1
        clock.advance(60_000)
        with EffectStore.open(path, clock=clock) as store:
            outcome = store.run("s", "k", ENVELOPE, lambda: "second")
            assert outcome in ("first", "second")
            assert store.run("s", "k", ENVELOPE, lambda: "third") == outcome
    assert faults >= 6
