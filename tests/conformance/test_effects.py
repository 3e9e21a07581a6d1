"""E-REC, E-BEGIN, E-RENEW, E-FIN and E-LIST, rule by rule; running has a file of its own."""

from __future__ import annotations

import enum
import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lash_store import Busy, EffectClaim, EffectStore, Replayed, turn_scope
from lash_store.effect.records import Effect, EffectError, ReplayedFailure
from lash_store.errors import (
    CorruptRecordError,
    EffectFailedError,
    IdempotencyConflictError,
    InvalidRecordError,
    LeaseLostError,
    NotFoundError,
)
from lash_store.testing import ManualClock
from tests.support.databases import all_rows, run_script

TTL = 1_000


def claim(effects: EffectStore, key: str = "k", **parts: Any) -> EffectClaim:
    begun = effects.begin_effect("s/t", key, {"model": "m"}, **{"ttl_ms": TTL, **parts})
    assert isinstance(begun, EffectClaim)
    return begun


def begin(effects: EffectStore, **parts: Any) -> Any:
    return effects.begin_effect("s/t", "k", {"model": "m"}, **parts)


def refused(path: Path, error: type[Exception], call: Any, match: str | None = None) -> Any:
    before = all_rows(path)
    with pytest.raises(error, match=match) as refusal:
        call()
    assert all_rows(path) == before
    return refusal.value


def test_e_rec_1_a_row(effects: EffectStore, path: Path, clock: ManualClock) -> None:
    now = clock.now_ms()
    digest = hashlib.sha256(b'{"a":1e+16,"b":[1]}').hexdigest()
    begun = effects.begin_effect("s", "k", {"b": [1], "a": 1e16}, due_at_ms=5)
    assert begun == EffectClaim("s", "k", digest, "ann", "token-1", now + 30_000, 5)
    assert all_rows(path)["runtime_effect_replay"] == [
        ("s", "k", digest, "in_progress", None, None, "ann", "token-1", now + 30_000, 5, now, now)
    ]
    clock.advance(7)
    assert isinstance(begun, EffectClaim)
    assert effects.finish_effect(begun, {"b": 1, "a": [2]}) == {"a": [2], "b": 1}
    assert all_rows(path)["runtime_effect_replay"] == [
        ("s", "k", digest, "completed", '{"a":[2],"b":1}', None, None, None, 0, 5, now, now + 7)
    ]


def test_e_rec_1_the_consumers_own_hash(effects: EffectStore, path: Path) -> None:
    begun = effects.begin_effect("s", "k", envelope_hash="mine")
    assert isinstance(begun, EffectClaim)
    assert begun.envelope_hash == "mine"
    refused(path, IdempotencyConflictError, lambda: effects.begin_effect("s", "k", {"x": 1}))
    refused(
        path,
        InvalidRecordError,
        lambda: effects.begin_effect("s", "k", {"x": 1}, envelope_hash="mine"),
    )
    refused(path, InvalidRecordError, lambda: effects.begin_effect("s", "k", envelope_hash=""))


def test_e_rec_1_scopes_of_turns() -> None:
    assert turn_scope("chat-42", "turn-1") == "chat-42/turn-1"
    for bad in (("", "t"), ("s", " "), ("a/b", "c")):
        with pytest.raises(InvalidRecordError):
            turn_scope(*bad)


def test_a_token_is_never_shown(effects: EffectStore, clock: ManualClock) -> None:
    begun = msgspec.structs.replace(claim(effects), token="0123456789abcdef")
    clock.advance(TTL)
    with pytest.raises(LeaseLostError) as lost:
        effects.finish_effect(begun, 1)
    assert "456789" not in f"{begun} {begun!r} {lost.value} {lost.value!r} {begun.__rich_repr__()}"


@pytest.mark.parametrize(
    "bad",
    [
        {"scope_id": ""},
        {"scope_id": " \n"},
        {"replay_key": "\t"},
        {"replay_key": None},
        {"envelope": float("nan")},
        {"ttl_ms": 0},
        {"ttl_ms": -1},
        {"ttl_ms": 0.5},
        {"due_at_ms": -1},
        {"owner_id": ""},
    ],
    ids=ascii,
)
def test_e_begin_1_bad_arguments_are_refused(
    effects: EffectStore, path: Path, bad: dict[str, Any]
) -> None:
    arguments: dict[str, Any] = {"scope_id": "s", "replay_key": "k", **bad}
    refused(path, InvalidRecordError, lambda: effects.begin_effect(**arguments))


def test_e_begin_1_what_a_beginning_gives(
    effects: EffectStore, path: Path, clock: ManualClock
) -> None:
    begun = claim(effects)
    before = all_rows(path)
    assert begin(effects) == Busy("ann", begun.expires_at_ms)
    assert begin(effects, owner_id="bob") == Busy("ann", begun.expires_at_ms)
    assert effects.look_up_effect("s/t", "k", {"model": "m"}) == Busy("ann", begun.expires_at_ms)
    assert all_rows(path) == before
    effects.finish_effect(begun, "done")
    before = all_rows(path)
    assert begin(effects) == Replayed("done")
    assert effects.look_up_effect("s/t", "k", {"model": "m"}) == Replayed("done")
    assert all_rows(path) == before
    failed = claim(effects, "f")
    effects.fail_effect(failed, EffectError("c", "m"))
    assert effects.begin_effect("s/t", "f", {"model": "m"}) == ReplayedFailure(
        EffectError("c", "m")
    )
    assert effects.look_up_effect("s/t", "new", 1) is None


@pytest.mark.parametrize("after_ms", [TTL - 1, TTL, TTL + 1])
def test_e_begin_1_an_expired_claim_is_taken_over(
    effects: EffectStore, path: Path, clock: ManualClock, after_ms: int
) -> None:
    first = claim(effects, due_at_ms=77)
    created = clock.now_ms()
    clock.advance(after_ms)
    begun = begin(effects, owner_id="bob", due_at_ms=99)
    if after_ms < TTL:
        assert begun == Busy("ann", first.expires_at_ms, 77)
        return
    assert isinstance(begun, EffectClaim)
    assert (begun.owner_id, begun.due_at_ms) == ("bob", 77)
    assert begun.token != first.token
    row = all_rows(path)["runtime_effect_replay"][0]
    assert row[6:12] == ("bob", begun.token, begun.expires_at_ms, 77, created, clock.now_ms())
    lost = refused(path, LeaseLostError, lambda: effects.finish_effect(first, "late"))
    assert lost.reason == "superseded"
    assert effects.finish_effect(begun, "in time") == "in time"


def test_e_begin_1_the_first_due_time_that_is_given(
    effects: EffectStore, clock: ManualClock
) -> None:
    claim(effects)
    for given, kept in ((None, None), (77, 77), (99, 77), (None, 77)):
        clock.advance(TTL)
        assert claim(effects, due_at_ms=given).due_at_ms == kept


@pytest.mark.parametrize("status", ["claimed", "expired", "completed", "failed"])
def test_e_begin_1_another_envelope_is_always_a_conflict(
    effects: EffectStore, path: Path, clock: ManualClock, status: str
) -> None:
    begun = claim(effects)
    if status == "completed":
        effects.finish_effect(begun, 1)
    elif status == "failed":
        effects.fail_effect(begun, EffectError("c", "m"))
    elif status == "expired":
        clock.advance(TTL)
    for call in (
        lambda: effects.begin_effect("s/t", "k", {"model": "n"}),
        lambda: effects.look_up_effect("s/t", "k", {"model": "n"}),
        lambda: effects.begin_effect("s/t", "k", {"model": "n"}, strict=True),
    ):
        conflict = refused(path, IdempotencyConflictError, call, "s/t:k")
        assert conflict.expected == begun.envelope_hash


@pytest.mark.parametrize(
    "spoilt",
    [
        "status = 'completed', outcome_json = NULL",
        "status = 'failed', error_json = NULL",
        "status = 'asleep'",
        "status = 'completed', outcome_json = 'nothing'",
        "status = 'failed', error_json = '{}'",
        "status = 'failed', error_json = '7'",
        "lease_owner_id = NULL",
    ],
)
def test_e_begin_2_a_row_that_contradicts_itself(
    effects: EffectStore, path: Path, spoilt: str
) -> None:
    claim(effects)
    run_script(path, f"UPDATE runtime_effect_replay SET {spoilt}")
    refused(path, CorruptRecordError, lambda: begin(effects), "s/t:k")
    refused(
        path,
        CorruptRecordError,
        lambda: effects.run("s/t", "k", {"model": "m"}, lambda: 1),
        "s/t:k",
    )
    if "lease" not in spoilt:
        refused(path, CorruptRecordError, effects.list_effects, "s/t:k")
    for other in (effects.begin_effect, effects.look_up_effect):  # whatever became of it
        refused(path, IdempotencyConflictError, partial(other, "s/t", "k", {"model": "n"}), "s/t:k")


def test_e_begin_3_strict_replay(effects: EffectStore, path: Path, clock: ManualClock) -> None:
    for call in (
        lambda: begin(effects, strict=True),
        lambda: effects.look_up_effect("s/t", "k", {"model": "m"}, strict=True),
        lambda: effects.run("s/t", "k", {"model": "m"}, lambda: 1, strict=True),
    ):
        refused(path, NotFoundError, call, "s/t:k")
    first = claim(effects)
    assert isinstance(begin(effects, strict=True), Busy)
    clock.advance(TTL)
    begun = begin(effects, strict=True)
    assert isinstance(begun, EffectClaim)
    assert begun.token != first.token
    effects.finish_effect(begun, 5)
    assert begin(effects, strict=True) == Replayed(5)
    assert effects.run("s/t", "k", {"model": "m"}, lambda: 1, strict=True) == 5


@pytest.mark.parametrize("after_ms", [TTL - 1, TTL, TTL + 1])
def test_e_renew_1_only_a_live_claim(
    effects: EffectStore, path: Path, clock: ManualClock, after_ms: int
) -> None:
    begun = claim(effects)
    clock.advance(after_ms)
    if after_ms < TTL:
        renewed = effects.renew_effect(begun, ttl_ms=7)
        assert renewed == msgspec.structs.replace(begun, expires_at_ms=clock.now_ms() + 7)
        assert all_rows(path)["runtime_effect_replay"][0][8] == clock.now_ms() + 7
        assert effects.finish_effect(begun, 1) == 1  # the end of a claim proves nothing
        return
    for call in (
        lambda: effects.renew_effect(begun),
        lambda: effects.finish_effect(begun, 1),
        lambda: effects.fail_effect(begun, EffectError("c", "m")),
    ):
        lost = refused(path, LeaseLostError, call)
        assert (lost.reason, lost.expected) == ("expired", begun)


@pytest.mark.parametrize(
    "change",
    [
        {"token": "forged"},
        {"owner_id": "bob"},
        {"envelope_hash": "other"},
        {"scope_id": "x"},
        {"replay_key": "x"},
    ],
    ids=str,
)
def test_e_renew_1_everything_has_to_match(
    effects: EffectStore, path: Path, change: dict[str, str]
) -> None:
    begun = claim(effects)
    forged = msgspec.structs.replace(begun, **change)
    for call in (
        lambda: effects.renew_effect(forged),
        lambda: effects.finish_effect(forged, 1),
        lambda: effects.fail_effect(forged, EffectError("c", "m")),
    ):
        refused(path, LeaseLostError, call)
    before = all_rows(path)
    assert effects.abandon_effect(forged) is False
    assert all_rows(path) == before


def test_e_fin_1_what_is_recorded_never_changes(effects: EffectStore, path: Path) -> None:
    begun = claim(effects)
    effects.finish_effect(begun, 1)
    for call in (
        lambda: effects.finish_effect(begun, 2),
        lambda: effects.fail_effect(begun, EffectError("c", "m")),
        lambda: effects.renew_effect(begun),
    ):
        assert refused(path, LeaseLostError, call).reason == "released"
    assert effects.abandon_effect(begun) is False
    assert begin(effects) == Replayed(1)


@pytest.mark.parametrize(
    "bad",
    [
        lambda effects, begun: effects.finish_effect(begun, float("nan")),
        lambda effects, begun: effects.finish_effect(begun, object()),
        lambda effects, begun: effects.finish_effect("token", 1),
        lambda effects, begun: effects.fail_effect(begun, "error"),
        lambda effects, begun: effects.fail_effect(begun, EffectError(7, "m")),  # type: ignore[arg-type] # reason: that is the test
        lambda effects, begun: effects.fail_effect(begun, EffectError("c", "\ud800")),
        lambda effects, begun: effects.renew_effect(begun, ttl_ms=0),
        lambda effects, begun: effects.renew_effect(msgspec.structs.replace(begun, token=7)),
        lambda effects, _: effects.abandon_effect(None),
    ],
)
def test_e_fin_1_bad_arguments_are_refused(effects: EffectStore, path: Path, bad: Any) -> None:
    begun = claim(effects)
    refused(path, InvalidRecordError, lambda: bad(effects, begun))


def test_e_fin_2_an_abandoned_step_begins_again_at_once(
    effects: EffectStore, path: Path, clock: ManualClock
) -> None:
    created = clock.now_ms()
    begun = claim(effects, due_at_ms=5)
    clock.advance(3)
    assert effects.abandon_effect(begun) is True
    assert all_rows(path)["runtime_effect_replay"][0][3:12] == (
        "in_progress", None, None, None, None, 0, 5, created, clock.now_ms(),
    )  # fmt: skip
    before = all_rows(path)
    assert effects.abandon_effect(begun) is False
    assert all_rows(path) == before
    again = begin(effects)
    assert isinstance(again, EffectClaim)
    assert again.due_at_ms == 5
    assert effects.abandon_effect(begun) is False  # it is somebody else's now
    clock.advance(60_000)
    assert effects.abandon_effect(again) is True  # late, and nobody took over


def test_e_list_1_listing_and_counting(effects: EffectStore, clock: ManualClock) -> None:
    assert effects.oldest_in_progress_ms() is None
    for scope in ("a", "b"):
        for key in ("1", "2", "3"):
            begun = effects.begin_effect(scope, key, key)
            assert isinstance(begun, EffectClaim)
            clock.advance(10)
            if key == "1":
                effects.finish_effect(begun, {"k": key})
            elif key == "2":
                effects.fail_effect(begun, EffectError("c", "m"))
    names = [(e.scope_id, e.replay_key) for e in effects.list_effects()]
    assert names == [(s, k) for s in "ab" for k in "123"]
    done, failed, running = effects.list_effects(scope_id="a")
    assert isinstance(done, Effect)
    assert (done.status, done.outcome, done.error, done.owner_id) == (
        "completed",
        {"k": "1"},
        None,
        None,
    )
    assert (failed.status, failed.outcome, failed.error) == ("failed", None, EffectError("c", "m"))
    assert (running.status, running.owner_id, running.outcome) == ("in_progress", "ann", None)
    assert running.created_at_ms == clock.now_ms() - 40
    assert [e.replay_key for e in effects.list_effects(status="failed")] == ["2", "2"]
    assert [e.scope_id for e in effects.list_effects(after=("a", "2"), limit=2)] == ["a", "b"]
    assert effects.list_effects(scope_id="none") == []
    assert [e.replay_key for e in effects.list_effects(scope_id="b", after=("a", "2"))] == [
        "1",
        "2",
        "3",
    ]
    assert [e.replay_key for e in effects.list_effects(scope_id="b", after=("b", "2"))] == ["3"]
    assert effects.list_effects(scope_id="a", after=("b", "")) == []
    assert (effects.count_effects(), effects.count_effects(scope_id="a")) == (6, 3)
    assert effects.count_effects(scope_id="b", status="in_progress") == 1
    assert effects.oldest_in_progress_ms() == 40
    assert effects.oldest_in_progress_ms(scope_id="b") == 10
    bad: list[Any] = [
        lambda: effects.list_effects(status="asleep"),  # type: ignore[arg-type] # reason: that is the test
        lambda: effects.list_effects(scope_id=7),  # type: ignore[arg-type] # reason: the same
        lambda: effects.list_effects(after="x"),  # type: ignore[arg-type] # reason: the same
        lambda: effects.list_effects(limit=-1),
        lambda: effects.count_effects(status="asleep"),  # type: ignore[arg-type] # reason: the same
        lambda: effects.oldest_in_progress_ms(scope_id=7),  # type: ignore[arg-type] # reason: the same
    ]
    for call in bad:
        with pytest.raises(InvalidRecordError):
            call()


def test_e_list_1_forgetting_and_pruning(
    effects: EffectStore, clock: ManualClock, path: Path
) -> None:
    for at in range(6):
        begun = claim(effects, f"k{at}")
        if at == 1:
            effects.fail_effect(begun, EffectError("c", "m"))
        else:
            effects.finish_effect(begun, at)
        clock.advance(10)
    bound_ms = clock.now_ms() - 10  # the last one was completed at it, and stays
    before = all_rows(path)
    assert effects.prune_effects(0) == effects.forget_scope("other") == 0
    assert all_rows(path) == before
    assert effects.prune_effects(bound_ms, limit=2) == 2
    assert effects.prune_effects(bound_ms, limit=2) == 2
    assert effects.prune_effects(bound_ms, limit=2) == 0
    assert [e.replay_key for e in effects.list_effects()] == ["k1", "k5"]
    running = claim(effects, "running")
    assert effects.forget_scope("s/t") == 2
    assert [e.replay_key for e in effects.list_effects()] == ["running"]
    effects.finish_effect(running, 1)
    for bad in (lambda: effects.prune_effects(-1), lambda: effects.forget_scope(" ")):
        refused(path, InvalidRecordError, bad)


def test_e_list_1_what_was_given_back_is_forgotten_and_keeps_its_scope_from_pruning(
    effects: EffectStore, clock: ManualClock, path: Path
) -> None:
    """Nobody is at it, and nobody may ever be again; at a sleep nobody is between two looks either."""
    effects.finish_effect(claim(effects, "done"), 1)
    assert effects.abandon_effect(claim(effects, "given-back"))
    asleep = effects.begin_effect("s/t", "asleep", "hash", due_at_ms=clock.now_ms() + 1_000_000)
    assert isinstance(asleep, EffectClaim)
    assert effects.abandon_effect(asleep)
    running = claim(effects, "running")
    clock.advance(1_000)
    before = all_rows(path)
    assert effects.prune_effects(clock.now_ms()) == 0
    assert all_rows(path) == before
    assert effects.forget_scope("s/t") == 2
    assert [e.replay_key for e in effects.list_effects()] == ["asleep", "running"]
    assert effects.abandon_effect(running)
    assert effects.forget_scope("s/t") == 1
    assert effects.forget_scope("s/t") == 0
    assert [e.replay_key for e in effects.list_effects()] == ["asleep"]


@pytest.mark.parametrize("under_way", ["step", "sleep"])
def test_e_list_1_work_that_is_under_way_keeps_what_it_has_done(
    effects: EffectStore, clock: ManualClock, path: Path, under_way: str
) -> None:
    effects.finish_effect(claim(effects, "charged"), 1)
    if under_way == "step":
        last = claim(effects, "step")
    else:
        effects.begin_sleep("s/t", "sleep", 100)
    effects.begin_effect("other", "step", {}, ttl_ms=TTL)
    clock.advance(TTL // 2)
    before = all_rows(path)
    assert effects.prune_effects(clock.now_ms()) == 0
    assert all_rows(path) == before
    if under_way == "step":
        effects.finish_effect(last, 2)
    else:
        effects.begin_sleep("s/t", "sleep", 100)
    assert effects.prune_effects(clock.now_ms()) == 1
    assert [e.replay_key for e in effects.list_effects(scope_id="s/t")] == [under_way]


def test_e_list_1_the_next_session_of_an_id_has_nothing_of_the_last_ones(
    effects: EffectStore, path: Path
) -> None:
    mine, kept = (
        ("chat/1", "chat/2/3", "chat/"),
        ("cha", "chat", "chat0/1", "chats/1", "Chat/1", "b/chat/1"),
    )
    for scope in (*mine, *kept):
        begun = effects.begin_effect(scope, "k", 1, ttl_ms=TTL)
        assert isinstance(begun, EffectClaim)
        if scope != "chat/2/3":
            effects.finish_effect(begun, scope)
    running = effects.begin_effect("chat/1", "running", 1, ttl_ms=TTL)
    assert isinstance(running, EffectClaim)
    effects.begin_sleep("chat/1", "asleep", 5)
    assert turn_scope("chat", "1") == "chat/1"
    for bad in ("", " ", "a/b", 7):
        refused(path, InvalidRecordError, lambda bad=bad: effects.delete_session(bad), "session_id")
    assert effects.delete_session("chat") == 5
    assert effects.delete_session("chat") == 0
    assert {each.scope_id for each in effects.list_effects()} == {*kept}
    refused(path, LeaseLostError, lambda: effects.finish_effect(running, 1))
    assert effects.run("chat/1", "k", 1, lambda: "of the next one") == "of the next one"


def test_e_sleep_1_a_sleep_is_due_once(
    effects: EffectStore, path: Path, clock: ManualClock
) -> None:
    assert effects.begin_sleep("s", "z", 100) == 100
    row = all_rows(path)["runtime_effect_replay"][0]
    assert (row[3], row[7], row[9]) == ("in_progress", None, clock.now_ms() + 100)
    clock.advance(60)
    assert effects.begin_sleep("s", "z", 100) == 40
    clock.advance(39)
    assert effects.begin_sleep("s", "z", 100) == 1
    clock.advance(1)
    assert effects.begin_sleep("s", "z", 100) == 0
    row = all_rows(path)["runtime_effect_replay"][0]
    assert row[3:5] == ("completed", '{"type":"sleep"}')  # the original's bytes
    before = all_rows(path)
    clock.advance(50)
    assert effects.begin_sleep("s", "z", 100) == 0
    assert all_rows(path) == before
    refused(path, IdempotencyConflictError, lambda: effects.begin_sleep("s", "z", 101))
    refused(path, InvalidRecordError, lambda: effects.begin_sleep("s", "y", -1))
    assert effects.begin_sleep("s", "at once", 0) == 0
    assert effects.begin_sleep("s", "for ever", 2**63 - 1) == 2**63 - 1 - clock.now_ms()


def test_e_sleep_1_a_strict_sleep_that_was_never_begun(
    effects: EffectStore, path: Path, clock: ManualClock
) -> None:
    for sleep in (effects.begin_sleep, effects.look_up_sleep, effects.sleep):
        refused(path, NotFoundError, partial(sleep, "s", "z", 100, strict=True))
        refused(path, InvalidRecordError, partial(sleep, "s", "z", 100, strict=1))  # type: ignore[arg-type] # reason: that is the test
    assert effects.begin_sleep("s", "z", 100) == 100
    assert effects.begin_sleep("s", "z", 100, strict=True) == 100
    assert effects.look_up_sleep("s", "z", 100, strict=True) == 100
    clock.advance(100)
    effects.sleep("s", "z", 100, strict=True)


def test_e_sleep_1_a_sleep_that_was_recorded_as_null(
    effects: EffectStore, path: Path, clock: ManualClock
) -> None:
    """By a release before this one."""
    effects.begin_sleep("s", "z", 100)
    clock.advance(100)
    effects.begin_sleep("s", "z", 100)
    run_script(path, "UPDATE runtime_effect_replay SET outcome_json = 'null'")
    assert effects.begin_sleep("s", "z", 100) == 0
    effects.sleep("s", "z", 100)


def test_e_sleep_1_somebody_elses_claim_keeps_nobody_from_waking(
    effects: EffectStore, clock: ManualClock
) -> None:
    envelope = {"type": "sleep", "duration_ms": 100}
    begun = effects.begin_effect("s", "z", envelope, due_at_ms=clock.now_ms() + 100, ttl_ms=10_000)
    assert isinstance(begun, EffectClaim)
    assert effects.begin_sleep("s", "z", 100) == 100
    clock.advance(100)
    assert effects.begin_sleep("s", "z", 100) == 0
    effects.fail_effect(begun, EffectError("c", "m"))
    with pytest.raises(EffectFailedError):
        effects.begin_sleep("s", "z", 100)


@pytest.mark.parametrize("column", ["created_at_ms", "updated_at_ms", "due_at_ms"])
def test_k_codec_2_a_time_that_is_none(effects: EffectStore, path: Path, column: str) -> None:
    claim(effects)
    run_script(path, f"UPDATE runtime_effect_replay SET {column} = 'noon', lease_expires_at_ms = 0")
    with pytest.raises(CorruptRecordError):
        effects.list_effects()
    if column == "created_at_ms":
        with pytest.raises(CorruptRecordError):
            effects.oldest_in_progress_ms()
    if column == "due_at_ms":
        with pytest.raises(CorruptRecordError):
            begin(effects)


def test_e_sleep_1_a_sleep_that_was_begun_without_a_time(effects: EffectStore, path: Path) -> None:
    envelope = {"type": "sleep", "duration_ms": 9}
    begun = effects.begin_effect("s", "z", envelope)
    assert isinstance(begun, EffectClaim)
    refused(path, CorruptRecordError, lambda: effects.begin_sleep("s", "z", 9), "s:z")
    assert effects.look_up_sleep("s", "new", 9) is None
    effects.begin_sleep("s", "y", 9)
    assert effects.look_up_sleep("s", "y", 9) == 9


class Names(enum.StrEnum):
    SCOPE = "s/t"
    CALL = "k"


def test_e_begin_4_a_step_named_by_an_enum_is_the_one_of_its_text(effects: EffectStore) -> None:
    begun = effects.begin_effect(Names.SCOPE, Names.CALL, {"model": "m"}, ttl_ms=TTL)
    assert isinstance(begun, EffectClaim)
    assert (type(begun.scope_id), type(begun.replay_key)) == (
        str,
        str,
    )  # what wakes who waits for it
    assert begun.key == "s/t:k"
    effects.fail_effect(begun, EffectError("code", "it \0 failed"))
    replayed = begin(effects, ttl_ms=TTL)
    assert replayed == ReplayedFailure(EffectError("code", "it \0 failed"))
    answers = [
        effects.run(Names.SCOPE, Names(name), "e", lambda: 1) for name in (Names.SCOPE, "s/t")
    ]
    assert answers == [1, 1]
