"""K-LEASE and S-LEASE, rule by rule, at the boundaries of a term; refusals change no row."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from sqlalchemy import Column, Integer, MetaData, Table, Text, insert, select, update

from lash_store import Fence, LeaseHeld, SessionFence, SessionLease, SessionStore, unique_owner_id
from lash_store.clock import MAX_INT
from lash_store.errors import (
    CorruptRecordError,
    InvalidRecordError,
    LeaseLostError,
    ReadOnlyStoreError,
)
from lash_store.leases import LeaseTerm
from lash_store.testing import ManualClock, SequentialIds, strategies
from tests.support.databases import all_rows, run_script

TTL = 1_000


def claim(
    store: SessionStore, owner_id: str = "ann", ttl_ms: int = TTL, **kwargs: Any
) -> SessionLease:
    lease = store.claim_lease(owner_id=owner_id, ttl_ms=ttl_ms, **kwargs)
    assert isinstance(lease, SessionLease)
    return lease


def changed(fence: SessionFence, **values: Any) -> SessionFence:
    parts = {name: getattr(fence, name) for name in ("key", "owner_id", "token", "fencing_token")}
    return SessionFence(**{**parts, **values})


def test_k_lease_1_the_first_claim_is_term_one(store: SessionStore, clock: ManualClock) -> None:
    lease = claim(store)
    assert lease.fence == SessionFence("s", "ann", "token-1", 1)
    assert (lease.claimed_at_ms, lease.expires_at_ms) == (clock.now_ms(), clock.now_ms() + TTL)
    assert (lease.session_id, lease.owner_id, lease.fencing_token) == ("s", "ann", 1)
    assert store.current_lease() == lease


@pytest.mark.parametrize("after_ms", [TTL, TTL + 1, 10 * TTL])
@pytest.mark.parametrize("owner_id", ["ann", "bob"])
def test_k_lease_1_an_expired_lease_gives_a_new_term(
    store: SessionStore, clock: ManualClock, after_ms: int, owner_id: str
) -> None:
    first = claim(store)
    clock.advance(after_ms)
    second = claim(store, owner_id)
    assert second.fencing_token == first.fencing_token + 1
    assert second.fence.token != first.fence.token
    assert second.claimed_at_ms == clock.now_ms()
    assert second.expires_at_ms == clock.now_ms() + TTL


def test_k_lease_1_a_released_lease_gives_a_new_term(store: SessionStore) -> None:
    first = claim(store)
    store.release_lease(first.fence)
    second = claim(store)
    assert (second.fencing_token, second.fence.token) == (2, "token-2")


@pytest.mark.parametrize("after_ms", [0, 1, TTL - 1])
def test_k_lease_2_another_live_owner_is_a_refusal_value(
    store: SessionStore, clock: ManualClock, path: Path, after_ms: int
) -> None:
    lease = claim(store)
    clock.advance(after_ms)
    before = all_rows(path)
    held = store.claim_lease(owner_id="bob", ttl_ms=TTL)
    assert held == LeaseHeld("s", "ann", 1, lease.claimed_at_ms, lease.expires_at_ms)
    assert all_rows(path) == before


@pytest.mark.parametrize("after_ms", [0, 1, TTL - 1])
def test_k_lease_3_the_live_term_is_renewed(
    store: SessionStore, clock: ManualClock, after_ms: int
) -> None:
    lease = claim(store)
    clock.advance(after_ms)
    renewed = store.renew_lease(lease.fence, ttl_ms=2 * TTL)
    assert renewed.fence == lease.fence
    assert renewed.claimed_at_ms == lease.claimed_at_ms
    assert renewed.expires_at_ms == clock.now_ms() + 2 * TTL
    assert store.current_lease() == renewed


def test_k_lease_3_a_renewal_may_also_shorten(store: SessionStore, clock: ManualClock) -> None:
    lease = claim(store)
    assert store.renew_lease(lease.fence, ttl_ms=1).expires_at_ms == clock.now_ms() + 1


Lose = Callable[[SessionStore, ManualClock], SessionFence]


def expired(store: SessionStore, clock: ManualClock) -> SessionFence:
    fence = claim(store).fence
    clock.advance(TTL)
    return fence


def long_expired(store: SessionStore, clock: ManualClock) -> SessionFence:
    fence = claim(store).fence
    clock.advance(TTL + 1)
    return fence


def superseded(store: SessionStore, clock: ManualClock) -> SessionFence:
    fence = expired(store, clock)
    claim(store, "bob")
    return fence


def superseded_by_itself(store: SessionStore, clock: ManualClock) -> SessionFence:
    fence = expired(store, clock)
    claim(store, "ann")
    return fence


def superseded_and_released(store: SessionStore, clock: ManualClock) -> SessionFence:
    fence = expired(store, clock)
    store.release_lease(claim(store, "bob").fence)
    return fence


def released(store: SessionStore, clock: ManualClock) -> SessionFence:
    fence = claim(store).fence
    store.release_lease(fence)
    return fence


def never_claimed(store: SessionStore, clock: ManualClock) -> SessionFence:
    return SessionFence("s", "ann", "x", 1)


def of_another_session(store: SessionStore, clock: ManualClock) -> SessionFence:
    return changed(claim(store).fence, key="other")


def ahead_of_the_row(store: SessionStore, clock: ManualClock) -> SessionFence:
    return changed(claim(store).fence, fencing_token=2)


def behind_the_row(store: SessionStore, clock: ManualClock) -> SessionFence:
    return changed(claim(store).fence, fencing_token=0)


def with_another_token(store: SessionStore, clock: ManualClock) -> SessionFence:
    return changed(claim(store).fence, token="forged")


def with_another_owner(store: SessionStore, clock: ManualClock) -> SessionFence:
    return changed(claim(store).fence, owner_id="bob")


LOST: dict[Lose, str] = {
    expired: "expired",
    long_expired: "expired",
    superseded: "superseded",
    superseded_by_itself: "superseded",
    superseded_and_released: "superseded",
    released: "released",
    never_claimed: "never_claimed",
    of_another_session: "never_claimed",
    ahead_of_the_row: "never_claimed",
    behind_the_row: "superseded",
    with_another_token: "never_claimed",
    with_another_owner: "never_claimed",
}
every_lost_fence = pytest.mark.parametrize(
    ("lose", "reason"), LOST.items(), ids=[lose.__name__ for lose in LOST]
)


@every_lost_fence
def test_k_lease_3_no_other_term_is_renewed(
    store: SessionStore, clock: ManualClock, path: Path, lose: Lose, reason: str
) -> None:
    fence = lose(store, clock)
    before = all_rows(path)
    with pytest.raises(LeaseLostError) as refusal:
        store.renew_lease(fence, ttl_ms=TTL)
    assert refusal.value.reason == reason
    assert all_rows(path) == before


@every_lost_fence
def test_k_lease_6_require_refuses_every_other_term(
    store: SessionStore, clock: ManualClock, path: Path, lose: Lose, reason: str
) -> None:
    fence = lose(store, clock)
    before = all_rows(path)
    with pytest.raises(LeaseLostError) as refusal, store.begin() as tx:
        tx.connection.exec_driver_sql("DELETE FROM session_execution_leases")
        tx.connection.exec_driver_sql("INSERT INTO blobs VALUES ('h', x'00')")
        raise_from_rows_before(tx, fence, before)
    assert refusal.value.reason == reason
    assert all_rows(path) == before


def raise_from_rows_before(tx: Any, fence: SessionFence, before: Any) -> None:
    """Put the rows back that the test deleted, to show that the error undoes all of it."""
    for row in before["session_execution_leases"]:
        tx.connection.exec_driver_sql(
            "INSERT INTO session_execution_leases VALUES (?, ?, ?, ?, ?, ?)", row
        )
    tx.require(fence)


def test_k_lease_6_require_lets_the_live_term_pass(store: SessionStore, clock: ManualClock) -> None:
    lease = claim(store)
    clock.advance(TTL - 1)
    with store.begin() as tx:
        tx.require(lease.fence)
    with store.read() as tx:
        tx.require(lease.fence)


@pytest.mark.parametrize("after_ms", [0, TTL - 1, TTL, TTL + 1])
def test_k_lease_4_the_exact_term_is_released_live_or_expired(
    store: SessionStore, clock: ManualClock, path: Path, after_ms: int
) -> None:
    fence = claim(store).fence
    clock.advance(after_ms)
    assert store.release_lease(fence) is True
    assert all_rows(path)["session_execution_leases"] == [("s", None, None, 1, 0, 0)]
    assert store.current_lease() is None


@pytest.mark.parametrize("lose", [lose for lose in LOST if lose not in (expired, long_expired)])
def test_k_lease_4_releasing_any_other_term_changes_nothing_and_says_so(
    store: SessionStore, clock: ManualClock, path: Path, lose: Lose
) -> None:
    fence = lose(store, clock)
    before = all_rows(path)
    assert store.release_lease(fence) is False
    assert all_rows(path) == before


def test_k_lease_5_the_error_says_what_was_expected_and_found(
    store: SessionStore, clock: ManualClock
) -> None:
    fence = superseded(store, clock)
    with pytest.raises(LeaseLostError) as refusal:
        store.renew_lease(fence, ttl_ms=TTL)
    error = refusal.value
    assert error.expected == fence
    assert error.actual == LeaseTerm("s", "bob", "token-2", 2, clock.now_ms(), clock.now_ms() + TTL)
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.expected, copy.actual, copy.reason) == (error.expected, error.actual, error.reason)
    assert str(copy) == str(error)


def test_k_lease_5_never_claimed_has_no_actual_term(store: SessionStore) -> None:
    with pytest.raises(LeaseLostError) as refusal:
        store.renew_lease(SessionFence("s", "ann", "x", 1), ttl_ms=TTL)
    assert refusal.value.actual is None
    assert "no term was ever claimed" in str(refusal.value)


def test_k_lease_6_a_stale_fence_changes_no_row_of_a_consumer(
    store: SessionStore, clock: ManualClock
) -> None:
    notes = Table(
        "notes", MetaData(), Column("id", Integer, primary_key=True), Column("text", Text)
    )
    with store.begin() as tx:
        notes.create(tx.connection)
        tx.connection.execute(insert(notes).values(id=7, text="draft"))
    lease = claim(store)

    def write(text: str) -> int:
        with store.begin() as tx:
            holds = lease.fence.holds(now_ms=tx.now_ms)
            statement = update(notes).where(notes.c.id == 7, holds).values(text=text)
            return tx.connection.execute(statement).rowcount

    clock.advance(TTL - 1)
    assert write("in time") == 1
    for _ in range(2):
        clock.advance(1)
        assert write("too late") == 0
    claim(store, "bob")
    assert write("superseded") == 0
    with store.read() as tx:
        assert tx.connection.scalar(select(notes.c.text)) == "in time"


def test_k_lease_7_a_ttl_of_zero_is_a_term_that_is_over(store: SessionStore, path: Path) -> None:
    lease = claim(store, ttl_ms=0)
    assert lease.expires_at_ms == lease.claimed_at_ms
    assert store.current_lease() is None
    with pytest.raises(LeaseLostError, match="expired"):
        store.renew_lease(lease.fence, ttl_ms=TTL)
    assert claim(store, "bob").fencing_token == 2


def test_k_lease_7_renewing_for_zero_ends_the_term(store: SessionStore) -> None:
    lease = claim(store)
    store.renew_lease(lease.fence, ttl_ms=0)
    assert claim(store, "bob").fencing_token == 2


def test_k_lease_7_an_end_too_large_saturates(store: SessionStore, clock: ManualClock) -> None:
    assert claim(store, ttl_ms=MAX_INT).expires_at_ms == MAX_INT
    clock.advance_to(MAX_INT - 1)
    assert store.current_lease() is not None
    clock.advance_to(MAX_INT)
    assert store.current_lease() is None


@pytest.mark.parametrize("after_ms", [0, 1, TTL - 1])
def test_s_lease_1_the_live_owner_re_enters_its_term(
    store: SessionStore, clock: ManualClock, after_ms: int
) -> None:
    first = claim(store)
    clock.advance(after_ms)
    again = claim(store, ttl_ms=5 * TTL)
    assert again.fence == first.fence
    assert again.claimed_at_ms == first.claimed_at_ms
    assert again.expires_at_ms == clock.now_ms() + 5 * TTL


def test_s_lease_1_a_helper_makes_owner_ids_unique() -> None:
    made = {unique_owner_id("runner") for _ in range(100)}
    assert len(made) == 100
    assert all(owner_id.startswith("runner:") for owner_id in made)


def test_the_fencing_number_survives_release_expiry_and_reopening(
    path: Path, clock: ManualClock
) -> None:
    for expected in range(1, 8):
        with SessionStore.open(path, session_id="s", clock=clock) as store:
            lease = claim(store, f"owner-{expected}")
            assert lease.fencing_token == expected
            if expected % 2:
                store.release_lease(lease.fence)
        clock.advance(TTL)


def test_leases_of_several_sessions_stand_in_one_file(store: SessionStore) -> None:
    mine, other = claim(store), claim(store, "bob", session_id="other")
    assert (mine.session_id, other.session_id) == ("s", "other")
    assert store.current_lease(session_id="other") == other
    store.release_lease(other.fence)
    assert store.current_lease() == mine
    assert store.current_lease(session_id="other") is None
    assert store.current_lease(session_id="never seen") is None


@pytest.mark.parametrize("now_ms", [0, MAX_INT])
def test_the_ends_of_time_are_times(path: Path, now_ms: int) -> None:
    with SessionStore.open(path, session_id="s", clock=ManualClock(now_ms)) as store:
        assert claim(store, ttl_ms=0).claimed_at_ms == now_ms


@given(owner_id=strategies.names(), session_id=strategies.names(), ttl_ms=strategies.ttls_ms())
def test_any_name_and_any_ttl_is_stored_as_given(
    owner_id: str, session_id: str, ttl_ms: int
) -> None:
    with SessionStore.open(None, session_id="s", clock=ManualClock()) as store:
        lease = claim(store, owner_id, ttl_ms, session_id=session_id)
        assert (lease.owner_id, lease.session_id) == (owner_id, session_id)
        assert lease.expires_at_ms == min(1_000_000 + ttl_ms, MAX_INT)
        assert store.current_lease(session_id=session_id) == (lease if ttl_ms else None)


@given(ttl_ms=strategies.bad_counts())
def test_a_bad_ttl_is_refused_before_anything_is_written(
    store: SessionStore, path: Path, ttl_ms: Any
) -> None:
    lease = claim(store)
    before = all_rows(path)
    calls: list[Callable[[], object]] = [
        lambda: store.claim_lease(owner_id="bob", ttl_ms=ttl_ms),
        lambda: store.renew_lease(lease.fence, ttl_ms=ttl_ms),
    ]
    for call in calls:
        with pytest.raises(InvalidRecordError, match="ttl_ms = ") as refusal:
            call()
        assert isinstance(refusal.value, ValueError)
    assert all_rows(path) == before


@given(name=strategies.bad_names())
def test_a_bad_name_is_refused_before_anything_is_written(
    store: SessionStore, path: Path, name: Any
) -> None:
    before = all_rows(path)
    with pytest.raises(InvalidRecordError, match="owner_id = "):
        store.claim_lease(owner_id=name, ttl_ms=TTL)
    if name is not None:
        with pytest.raises(InvalidRecordError, match="session_id = "):
            store.claim_lease(owner_id="ann", ttl_ms=TTL, session_id=name)
    with pytest.raises(InvalidRecordError, match="session_id = "):
        SessionStore.open(path.parent / "never.db", session_id=name)
    assert not (path.parent / "never.db").exists()
    assert all_rows(path) == before


@pytest.mark.parametrize("now_ms", [-1, MAX_INT + 1, 1.5, True, None, "1"])
def test_a_clock_that_gives_no_time_is_refused(path: Path, now_ms: Any) -> None:
    class Broken:
        def now_ms(self) -> int:
            return now_ms  # type: ignore[no-any-return] # reason: a clock may be wrong

    with SessionStore.open(path, session_id="s", clock=Broken()) as store:
        before = all_rows(path)
        with pytest.raises(InvalidRecordError, match=r"clock\.now_ms\(\) = "):
            store.claim_lease(owner_id="ann", ttl_ms=TTL)
        assert all_rows(path) == before
    with SessionStore.open(path, session_id="s") as store:
        claim(store)  # and the lock was given back


def test_a_fence_of_another_kind_is_refused(store: SessionStore, path: Path) -> None:
    lease = claim(store)
    before = all_rows(path)
    wrong: list[Any] = [lease, None, "s", Fence("s", "ann", "token-1", 1)]
    for fence in wrong:
        with pytest.raises(InvalidRecordError, match="fence = "):
            store.renew_lease(fence, ttl_ms=TTL)
        with pytest.raises(InvalidRecordError, match="fence = "):
            store.release_lease(fence)
        with store.begin() as tx, pytest.raises(InvalidRecordError, match="fence = "):
            tx.require(fence)
    assert all_rows(path) == before


@pytest.mark.parametrize(
    "values",
    [
        {"key": ""},
        {"owner_id": 7},
        {"token": ""},
        {"token": None},
        {"fencing_token": -1},
        {"fencing_token": "1"},
        {"key": "\ud800"},
    ],
)
def test_a_fence_that_can_be_none_is_refused_when_it_is_made(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidRecordError, match="fence"):
        changed(SessionFence("s", "ann", "secret", 1), **values)


def test_writing_through_a_reader_is_refused(store: SessionStore, path: Path) -> None:
    lease = claim(store)
    before = all_rows(path)
    with store.read() as tx:
        for write in (
            lambda: tx.claim_lease(owner_id="ann", ttl_ms=TTL),
            lambda: tx.renew_lease(lease.fence, ttl_ms=TTL),
            lambda: tx.release_lease(lease.fence),
        ):
            with pytest.raises(ReadOnlyStoreError):
                write()
    assert all_rows(path) == before


@pytest.mark.parametrize(
    "change",
    [
        "lease_owner_id = NULL",
        "lease_token = x'00'",
        "lease_owner_id = x'00'",
        "lease_fencing_token = 'one'",
        "lease_claimed_at_ms = 1.5",
    ],
)
def test_a_corrupt_row_is_a_typed_error_and_stays(
    store: SessionStore, path: Path, change: str
) -> None:
    lease = claim(store)
    run_script(path, f"UPDATE session_execution_leases SET {change}")
    before = all_rows(path)
    with pytest.raises(CorruptRecordError, match="session_execution_leases"):
        store.current_lease()
    with pytest.raises((CorruptRecordError, LeaseLostError)):
        store.renew_lease(lease.fence, ttl_ms=TTL)
    with pytest.raises(CorruptRecordError):
        store.claim_lease(owner_id="bob", ttl_ms=TTL)
    assert all_rows(path) == before


def test_the_highest_fencing_number_is_the_last(store: SessionStore, path: Path) -> None:
    """It can't grow any more: the claim is refused, and not as if a number had been given twice."""
    claim(store, ttl_ms=0)
    run_script(path, f"UPDATE session_execution_leases SET lease_fencing_token = {MAX_INT}")
    before = all_rows(path)
    with pytest.raises(CorruptRecordError):
        claim(store)
    assert all_rows(path) == before


@pytest.mark.parametrize("show", [repr, str, "{}".format, ascii])
def test_no_token_is_shown_whole(path: Path, show: Callable[[object], str]) -> None:
    with SessionStore.open(path, session_id="s") as store:
        lease = claim(store)
        store.release_lease(lease.fence)
        second = claim(store, "bob")
        with pytest.raises(LeaseLostError) as refusal:
            store.renew_lease(lease.fence, ttl_ms=TTL)
    error = refusal.value
    for value in (lease, lease.fence, error, error.args, error.actual):
        text = show(value)
        assert lease.fence.token not in text
        assert second.fence.token not in text


def test_no_token_is_shown_by_rich() -> None:
    fence = SessionFence("s", "ann", "a-long-secret", 1)
    term = LeaseTerm("s", "ann", "a-long-secret", 1, 0, 0)
    shown = [*fence.__rich_repr__(), *term.__rich_repr__()]
    assert "a-long-secret" not in str(shown)
    assert ("token", "a-lo…") in shown


def test_ids_of_the_test_are_used(path: Path) -> None:
    with SessionStore.open(path, session_id="s", ids=SequentialIds("t")) as store:
        assert claim(store).fence.token == "t-1"
