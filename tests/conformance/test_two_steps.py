"""Operations in two steps: arguments are checked and encoded first, and the work comes later.

The work may wait for a lock, run on another thread and run again, so nothing that a caller does to
its arguments in the meantime can reach it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from lash_store import (
    EffectClaim,
    EffectStore,
    External,
    ProcessRegistry,
    Scope,
    TriggerStore,
)
from lash_store.clock import RandomIds, SystemClock
from lash_store.effect.context import effect_context
from lash_store.effect.operations import EffectOperations, attempts
from lash_store.effect.records import EffectError, Replayed
from lash_store.errors import InvalidRecordError
from lash_store.process.operations import ProcessOperations, events, handles, processes
from lash_store.process.records import EventType, ExternalRef, Success, signal_wait
from lash_store.trigger.operations import TriggerOperations, deliveries, subscriptions
from lash_store.trigger.records import Fixed
from tests.support.leased import JOBS, JobFence, metadata as jobs_metadata
from tests.support.registries import TARGET, TICK, lease_on, register, registration
from tests.support.triggers import ONE, draft, occur, subscribe

STORES: dict[Any, Any] = {
    ProcessRegistry: ProcessOperations,
    TriggerStore: TriggerOperations,
    EffectStore: EffectOperations,
}


def names(kind: Any, *, writes: bool | None = None) -> list[str]:
    """What a store lists, or that of it which writes."""
    listed = {name: each for name, each in vars(STORES[kind]).items() if hasattr(each, "function")}
    return [name for name, each in listed.items() if writes is None or each.writes == writes]


class SameIds:
    """An id is the same each time, so that what is done again can be compared."""

    def new_token(self) -> str:
        return "c0ffee"


class UndoneError(Exception):
    pass


def filled(kind: Any, clock: Any) -> Any:
    """A store with something of everything in it."""
    store = kind.open(None, clock=clock, ids=SameIds())
    if kind is ProcessRegistry:
        register(store)
        store.append_event("p", "wake", "x")
        store.grant_handle(TARGET, "p")
        register(store, "q")
        lease_on(store)
    elif kind is TriggerStore:
        subscribe(store)
        occur(store)
    else:
        with store.begin() as tx:
            jobs_metadata.create_all(tx.connection)
            JOBS.claim(tx, "job", owner_id="ann", ttl_ms=1_000)
        store.begin_effect("s", "k", 1)
        store.finish_effect(store.begin_effect("s", "done", 1), 5)
    return store


def job_of(store: EffectStore) -> JobFence:
    """The fence of the lease on a table of the tests' own."""
    with store.read() as tx:
        lease = JOBS.current(tx, "job")
    assert lease is not None
    return lease.fence


def arguments(store: Any) -> dict[str, tuple[tuple[Any, ...], dict[str, Any]]]:
    """A call of every operation, for a store that is ``filled``."""

    def call(*args: Any, **options: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, options

    if isinstance(store, ProcessRegistry):
        lease = store.current_lease("p")
        assert lease is not None
        return {
            "register_process": call(registration("new")),
            "load_process": call("p"),
            "list_processes": call(),
            "known_processes": call(iter(["p", "x"])),
            "set_external_ref": call("p", ExternalRef("b", "1")),
            "set_wait": call("p", signal_wait("p", "go", ordinal=1, since_ms=1)),
            "clear_wait": call("p"),
            "append_event": call("p", "wake", {"x": [1]}, replay_key="k", fence=lease.fence),
            "complete_process": call("p", Success({"x": 1}), fence=lease.fence),
            "request_cancel": call("p", reason="why"),
            "events_after": call("p"),
            "recent_events": call("p"),
            "count_through": call("p", "wake", 1),
            "first_event_after": call("p", "wake", 0),
            "wake_events_after": call("p"),
            "ack_wake": call("p", 1),
            "pending_wakes": call(),
            "grant_handle": call(TARGET, "q"),
            "revoke_handle": call(TARGET, "p"),
            "transfer_handles": call(TARGET, Scope("other"), iter(["p"])),
            "has_handle": call(TARGET, "p"),
            "list_handles": call(TARGET),
            "list_live_handles": call(TARGET),
            "list_handles_on": call("p"),
            "delete_session": call(TARGET.session_id),
            "claim_lease": call("q", owner_id="bob", ttl_ms=5),
            "claim_next": call(owner_id="bob", ttl_ms=5),
            "complete_and_claim_next": call(lease.fence, Success({"x": 1}), ttl_ms=5),
            "renew_lease": call(lease.fence, ttl_ms=5),
            "release_lease": call(lease.fence),
            "current_lease": call("p"),
            "list_causing_occurrences": call(2**62),
            "prune_processes": call(2**62, forgotten=iter(["x"])),
        }
    if isinstance(store, TriggerStore):
        occurrence_id = occur(store).occurrence_id
        return {
            "register_subscription": call(draft()),
            "list_subscriptions": call(),
            "cancel_subscription": call("one", "trigger:1"),
            "enable_subscription": call("one", "trigger:1"),
            "delete_subscription": call("one", "trigger:1"),
            "delete_session": call("one"),
            "record_occurrence": call("cron", "daily", [1], idempotency_key="new"),
            "load_occurrence": call(occurrence_id),
            "reserve_deliveries": call(occurrence_id),
            "redeliver": call(occurrence_id),
            "list_deliveries": call(),
            "list_reserved_processes": call(2**62),
            "prune_occurrences": call(2**62, started=iter(["x"])),
        }
    claim = EffectClaim("s", "k", begun_as(store), store.owner_id, "c0ffee", 2**62)
    return {
        "begin_effect": call("s", "new", {"x": [1]}),
        "look_up_effect": call("s", "done", 1),
        "renew_effect": call(claim),
        "finish_effect": call(claim, {"x": [1]}),
        "fail_effect": call(claim, EffectError("code", "message")),
        "record_effect": call(job_of(store), "s", "new", {"x": [1]}, {"x": [1]}),
        "abandon_effect": call(claim),
        "begin_sleep": call("s", "sleep", 5),
        "look_up_sleep": call("s", "sleep", 5),
        "list_effects": call(),
        "count_effects": call(),
        "oldest_in_progress_ms": call(),
        "forget_scope": call("s"),
        "delete_session": call("s"),
        "prune_effects": call(2**62),
    }


def begun_as(effects: EffectStore) -> str:
    return next(each.envelope_hash for each in effects.list_effects(status="in_progress"))


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in STORES for name in names(kind)]
)
def test_work_that_is_done_again_does_the_same(kind: Any, name: str, clock: Any) -> None:
    """As after a rollback, and on another thread; whatever came out of the first time."""
    with filled(kind, clock) as store:
        calls = arguments(store)
        assert sorted(calls) == sorted(names(kind))
        args, options = calls[name]
        work = vars(STORES[kind])[name].function(store._context, *args, **options)
        results = []

        def do_and_undo() -> None:
            with suppress(UndoneError), store.begin() as tx:
                results.append(work(tx))
                raise UndoneError

        thread = Thread(target=do_and_undo)
        thread.start()
        thread.join()
        do_and_undo()
        with store.begin() as tx:
            results.append(work(tx))
        assert results[0] == results[1] == results[2]


CLAIM = EffectClaim("s", "k", "hash", "ann", "c0ffee", 1)
NAN = float("nan")

REFUSED: dict[Any, dict[str, Callable[[Any], object]]] = {
    ProcessRegistry: {
        "register_process": lambda on: on.register_process(registration("")),
        "set_external_ref": lambda on: on.set_external_ref("p", ExternalRef("b", "1", NAN)),
        "set_wait": lambda on: on.set_wait("p", None),
        "clear_wait": lambda on: on.clear_wait(""),
        "append_event": lambda on: on.append_event("p", "tick", {"x": NAN}),
        "complete_process": lambda on: on.complete_process("p", Success(NAN)),
        "request_cancel": lambda on: on.request_cancel("p", reason=1),
        "ack_wake": lambda on: on.ack_wake("p", -1),
        "grant_handle": lambda on: on.grant_handle(TARGET, ""),
        "revoke_handle": lambda on: on.revoke_handle(Scope(""), "p"),
        "transfer_handles": lambda on: on.transfer_handles(TARGET, TARGET, "p"),
        "delete_session": lambda on: on.delete_session(""),
        "claim_lease": lambda on: on.claim_lease("p", owner_id="ann", ttl_ms=-1),
        "claim_next": lambda on: on.claim_next(owner_id="ann", ttl_ms=-1),
        "complete_and_claim_next": lambda on: on.complete_and_claim_next(
            None, Success(1), ttl_ms=1
        ),
        "renew_lease": lambda on: on.renew_lease(None, ttl_ms=1),
        "release_lease": lambda on: on.release_lease(None),
        "prune_processes": lambda on: on.prune_processes(1, forgotten="p"),
    },
    TriggerStore: {
        "register_subscription": lambda on: on.register_subscription(draft(source=NAN)),
        "cancel_subscription": lambda on: on.cancel_subscription(None, ""),
        "enable_subscription": lambda on: on.enable_subscription("", "trigger:1"),
        "delete_subscription": lambda on: on.delete_subscription(None, ""),
        "delete_session": lambda on: on.delete_session(""),
        "record_occurrence": lambda on: on.record_occurrence("a", "b", NAN, idempotency_key="c"),
        "reserve_deliveries": lambda on: on.reserve_deliveries(""),
        "redeliver": lambda on: on.redeliver(""),
        "prune_occurrences": lambda on: on.prune_occurrences(1, started="p"),
    },
    EffectStore: {
        "begin_effect": lambda on: on.begin_effect("s", "k", NAN),
        "renew_effect": lambda on: on.renew_effect(CLAIM, ttl_ms=0),
        "finish_effect": lambda on: on.finish_effect(CLAIM, NAN),
        "fail_effect": lambda on: on.fail_effect(CLAIM, EffectError("code", "\ud800")),
        "record_effect": lambda on: on.record_effect(CLAIM, "s", "k"),
        "abandon_effect": lambda on: on.abandon_effect(None),
        "begin_sleep": lambda on: on.begin_sleep("s", " ", 1),
        "forget_scope": lambda on: on.forget_scope(" "),
        "delete_session": lambda on: on.delete_session("a/b"),
        "prune_effects": lambda on: on.prune_effects(-1),
    },
}


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in STORES for name in names(kind, writes=True)]
)
def test_a_bad_argument_is_refused_without_waiting_for_the_lock(
    kind: Any, name: str, tmp_path: Path
) -> None:
    path = tmp_path / "store.db"
    with (
        kind.open(path, busy_timeout_ms=10_000) as store,
        closing(sqlite3.connect(path, isolation_level=None)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(InvalidRecordError):  # and no StoreBusyError, ten seconds later
            REFUSED[kind][name](store)


@pytest.fixture
def registry() -> Iterator[ProcessRegistry]:
    with ProcessRegistry.open(None) as registry:
        register(registry)
        yield registry


@pytest.fixture
def triggers() -> Iterator[TriggerStore]:
    with TriggerStore.open(None) as triggers:
        yield triggers


@pytest.fixture
def effects() -> Iterator[EffectStore]:
    with EffectStore.open(None) as effects:
        yield effects


def test_iterables_are_exhausted_at_once(registry: ProcessRegistry, triggers: TriggerStore) -> None:
    registry.grant_handle(TARGET, "p")
    ids = iter(["p", "x"])
    known = processes.known_processes(registry._context, ids)
    assert next(ids, None) is None
    with registry.read() as tx:
        assert known(tx) == known(tx) == {"p"}

    ids = iter(["p", "p"])
    transfer = handles.transfer_handles(registry._context, TARGET, Scope("other"), ids)
    assert next(ids, None) is None
    with registry.begin() as tx:
        assert transfer(tx) == 1

    subscribe(triggers)
    occurrence = occur(triggers)
    (delivery,) = triggers.reserve_deliveries(occurrence.occurrence_id).deliveries
    ids = iter([delivery.process_id])
    prune = deliveries.prune_occurrences(triggers._context, 2**62, started=ids)
    assert next(ids, None) is None
    with triggers.begin() as at:
        assert prune(at).removed == 1
    with triggers.begin() as at:
        assert prune(at).removed == 0


def test_an_event_is_what_its_payload_was(registry: ProcessRegistry) -> None:
    payload: dict[str, Any] = {"x": [1]}
    append = events.append_event(registry._context, "p", "tick", payload)
    payload["x"].append(2)
    with registry.begin() as tx:
        first = append(tx)
        first.event.payload["x"].append(3)  # a caller's own, too
    with registry.begin() as tx:
        second = append(tx)
    assert (first.event.sequence, second.event.sequence) == (1, 2)
    assert second.event.payload == {"x": [1]}
    assert [each.payload for each in registry.events_after("p")] == [{"x": [1]}] * 2


def test_an_event_that_is_sent_again_is_a_replay(registry: ProcessRegistry) -> None:
    append = events.append_event(registry._context, "p", "tick", [1], replay_key="k")
    with registry.begin() as tx:
        assert not append(tx).is_replay
        assert append(tx).is_replay


def test_a_process_ends_with_what_its_output_was(registry: ProcessRegistry) -> None:
    value: dict[str, Any] = {"x": [1]}
    complete = events.complete_process(registry._context, "p", Success(value))
    value["x"].append(2)
    with registry.begin() as tx:
        assert complete(tx).record.await_output == Success({"x": [1]})
    with registry.begin() as tx:
        assert complete(tx).is_replay


def test_a_process_is_what_its_registration_was(registry: ProcessRegistry) -> None:
    metadata: dict[str, Any] = {"x": [1]}
    types = [TICK]
    given = registration("q", input=External(metadata), event_types=types)
    register_it = processes.register_process(registry._context, given)
    ref = ExternalRef("backend", "1", metadata)
    note = processes.set_external_ref(registry._context, "q", ref)
    metadata["x"].append(2)
    types.append(EventType("tock"))
    with registry.begin() as tx:
        record = register_it(tx)
        noted = note(tx)
    assert record.input == External({"x": [1]})
    assert "tock" not in {each.name for each in record.event_types}
    assert noted.external_ref == ExternalRef("backend", "1", {"x": [1]})
    with registry.begin() as tx:
        assert register_it(tx) == noted


def test_a_subscription_is_what_its_draft_was(triggers: TriggerStore) -> None:
    value: list[Any] = [1]
    template: dict[str, Any] = {"a": Fixed(value)}
    given = draft(input_template=template, source=value)
    subscribe_it = subscriptions.register_subscription(triggers._context, given)
    template["b"] = Fixed(2)
    value.append(2)
    with triggers.begin() as tx:
        one, two = subscribe_it(tx), subscribe_it(tx)
    assert (one.handle, two.handle) == ("trigger:1", "trigger:2")
    for each in triggers.list_subscriptions().subscriptions:
        assert (each.registrant, each.source) == (ONE, [1])
        assert each.input_template == {"a": Fixed([1])}


def test_an_occurrence_is_what_its_payload_was(triggers: TriggerStore) -> None:
    payload: dict[str, Any] = {"x": [1]}
    record = deliveries.record_occurrence(
        triggers._context, "cron", "daily", payload, idempotency_key="k", source=payload
    )
    payload["x"].append(2)
    with triggers.begin() as tx:
        first = record(tx)
        first.payload["x"].append(3)
        second = record(tx)
    assert (second.payload, second.source) == ({"x": [1]}, {"x": [1]})


def test_a_step_is_what_its_envelope_was(effects: EffectStore) -> None:
    envelope: dict[str, Any] = {"x": [1]}
    context = effect_context("ann", SystemClock(), RandomIds())
    begin = attempts.begin_effect(context, "s", "k", envelope)
    envelope["x"].append(2)
    with effects.begin() as tx:
        claim = begin(tx)
    assert isinstance(claim, EffectClaim)
    assert claim.owner_id == "ann"
    assert effects.look_up_effect("s", "k", {"x": [1]}) is not None

    outcome: dict[str, Any] = {"y": [1]}
    finish = attempts.finish_effect(context, claim, outcome)
    outcome["y"].append(2)
    with suppress(UndoneError), effects.begin() as tx:
        finish(tx)["y"].append(3)
        raise UndoneError
    with effects.begin() as tx:
        assert finish(tx) == {"y": [1]}
    assert effects.begin_effect("s", "k", {"x": [1]}) == Replayed({"y": [1]})
