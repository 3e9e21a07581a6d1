"""What is about one thing leaves its neighbours alone: those that sort before it, and those behind.

A condition that says ``<=`` where it should say ``==`` holds for the right row too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import func, select

from lash_store import EffectStore, NewWork, SessionStore
from lash_store.effect.records import EffectClaim, EffectError
from lash_store.effect.statements import is_live_claim
from lash_store.effect.tables import runtime_effect_replay
from lash_store.errors import ClaimLostError, IdempotencyConflictError, LeaseLostError
from lash_store.testing import ManualClock
from tests.support.databases import all_rows
from tests.support.sessions import claim_of

SCOPES, KEYS = ("a", "b", "c"), ("j", "k", "l")


def begun(effects: EffectStore, scope_id: str = "b", key: str = "k") -> EffectClaim:
    claim = effects.begin_effect(scope_id, key, envelope_hash="hash", owner_id="owner")
    assert isinstance(claim, EffectClaim)
    return claim


ENDS: dict[str, Callable[[EffectStore, EffectClaim], object]] = {
    "renew": lambda effects, claim: effects.renew_effect(claim, ttl_ms=60_000),
    "finish": lambda effects, claim: effects.finish_effect(claim, 1),
    "fail": lambda effects, claim: effects.fail_effect(claim, EffectError("code", "text")),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("field", ["scope_id", "replay_key", "envelope_hash", "owner_id", "token"])
def test_e_renew_1_a_claim_that_differs_in_one_field_holds_nothing(
    effects: EffectStore, path: Path, field: str, end: str
) -> None:
    claim = begun(effects)
    before = all_rows(path)
    for other in ("!", "~"):  # which sort before all others, and behind them
        forged = msgspec.structs.replace(claim, **{field: other})
        with pytest.raises(LeaseLostError):
            ENDS[end](effects, forged)
        assert effects.abandon_effect(forged) is False
    assert all_rows(path) == before
    assert ENDS[end](effects, claim) in (1, None) or end == "renew"


def test_e_begin_3_a_hash_on_either_side_is_another_step(effects: EffectStore, path: Path) -> None:
    claim = begun(effects)
    effects.abandon_effect(claim)
    before = all_rows(path)
    for other in ("!", "~"):
        with pytest.raises(IdempotencyConflictError):
            effects.begin_effect("b", "k", envelope_hash=other)
    assert all_rows(path) == before


def test_e_list_1_scopes_statuses_and_pages(effects: EffectStore, clock: ManualClock) -> None:
    began_ms = {}
    for scope in SCOPES:
        for key in KEYS:
            claim = begun(effects, scope, key)
            began_ms[scope, key] = clock.now_ms()
            if key == "j":
                effects.finish_effect(claim, key)
            elif key == "k":
                effects.fail_effect(claim, EffectError("code", "text"))
            clock.advance(10)
    names = [(scope, key) for scope in SCOPES for key in KEYS]

    def listed(**given: Any) -> list[tuple[str, str]]:
        return [(each.scope_id, each.replay_key) for each in effects.list_effects(**given)]

    assert listed() == names
    for at in range(len(names)):
        assert listed(after=names[at], limit=2) == names[at + 1 : at + 3]
    statuses: dict[str, Any] = {"j": "completed", "k": "failed", "l": "in_progress"}
    for key, status in statuses.items():
        assert listed(status=status) == [(scope, key) for scope in SCOPES]
        assert effects.count_effects(status=status) == 3
        for scope in SCOPES:
            assert listed(scope_id=scope, status=status) == [(scope, key)]
            assert effects.count_effects(scope_id=scope, status=status) == 1
    for scope in SCOPES:
        assert listed(scope_id=scope) == [(scope, key) for key in KEYS]
        assert listed(scope_id=scope, after=(scope, "j"), limit=1) == [(scope, "k")]
        age = effects.oldest_in_progress_ms(scope_id=scope)
        assert age == clock.now_ms() - began_ms[scope, "l"]
    assert effects.oldest_in_progress_ms() == clock.now_ms() - began_ms["a", "l"]


def test_e_list_1_what_is_forgotten_and_pruned_is_that_alone(
    effects: EffectStore, clock: ManualClock
) -> None:
    for scope in SCOPES:
        effects.finish_effect(begun(effects, scope, "j"), 1)
        effects.fail_effect(begun(effects, scope, "k"), EffectError("code", "text"))
        begun(effects, scope, "l")
        clock.advance(10)
    assert effects.forget_scope("b") == 2

    def left() -> list[tuple[str, str]]:
        return [(each.scope_id, each.replay_key) for each in effects.list_effects()]

    assert left() == [
        ("a", "j"),
        ("a", "k"),
        ("a", "l"),
        ("b", "l"),
        ("c", "j"),
        ("c", "k"),
        ("c", "l"),
    ]
    last_ms = clock.now_ms() - 10
    assert effects.prune_effects(last_ms) == 1
    assert left() == [("a", "k"), ("a", "l"), ("b", "l"), ("c", "j"), ("c", "k"), ("c", "l")]
    assert effects.prune_effects(last_ms + 1) == 1
    assert left() == [("a", "k"), ("a", "l"), ("b", "l"), ("c", "k"), ("c", "l")]


def test_s_queue_9_the_depth_tells_claimed_ready_and_not_yet(
    store: SessionStore, clock: ManualClock
) -> None:
    now = clock.now_ms()
    for available_at_ms in (now - 1, now - 1, now, now + 1):
        store.enqueue_work(NewWork([1], available_at_ms=available_at_ms))
    claim = claim_of(store)
    depth = store.work_depth()
    assert (depth.batches, depth.claimed, depth.ready) == (4, 1, 2)
    clock.advance(claim.expires_at_ms - 1 - clock.now_ms())
    assert (store.work_depth().claimed, store.work_depth().ready) == (1, 3)
    clock.advance(1)  # a term ends exclusively
    assert (store.work_depth().claimed, store.work_depth().ready) == (0, 4)


def test_s_queue_3_none_at_all_is_refused_and_one_is_taken(store: SessionStore) -> None:
    for _ in range(2):
        store.enqueue_work(NewWork([1]))
    assert len(claim_of(store, max_batches=1).batch_ids) == 1


def test_e_renew_1_the_condition_of_a_live_claim_holds_of_that_alone(
    effects: EffectStore, clock: ManualClock
) -> None:
    claim = begun(effects)
    given = {name: getattr(claim, name) for name in _CLAIM}

    def holds(now_ms: int, **others: Any) -> bool:
        condition = is_live_claim(**{**given, **others}, now_ms=now_ms)
        with effects.read() as tx:
            found = select(func.count()).select_from(runtime_effect_replay).where(condition)
            return bool(tx.connection.scalar(found) == 1)

    assert holds(clock.now_ms())
    assert holds(claim.expires_at_ms - 1)
    assert not holds(claim.expires_at_ms)
    for name in _CLAIM:
        for other in ("!", "~"):
            assert not holds(clock.now_ms(), **{name: other})
    effects.finish_effect(claim, 1)
    assert not holds(clock.now_ms())


_CLAIM = ("scope_id", "replay_key", "envelope_hash", "owner_id", "token")


def test_s_queue_6_a_claim_that_differs_in_one_field_stands_on_nothing(
    store: SessionStore, path: Path
) -> None:
    store.enqueue_work(NewWork([1]))
    claim = claim_of(store)
    before = all_rows(path)
    for field in ("session_id", "claim_id", "token"):
        for other in ("!", "~"):
            forged = msgspec.structs.replace(claim, **{field: other})
            with pytest.raises(ClaimLostError):
                store.renew_claim(forged, ttl_ms=60_000)
            with store.read() as tx, pytest.raises(ClaimLostError):
                tx.require_claim(forged)
    assert all_rows(path) == before
