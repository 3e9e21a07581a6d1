"""K-LEASE, rule by rule, for every lease there is; refusals change no row.

Sessions, processes, both facades, and a lease on a consumer's own table go through the same
tests. What is a session's or a process's alone stands in the suites of those stores.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Text, insert, select, update

from lash_store import Fence, Lease, LeaseHeld, NewWork, SessionLease, SessionStore
from lash_store._stores.leasing import leases_of
from lash_store.clock import MAX_INT
from lash_store.errors import (
    CorruptRecordError,
    InvalidRecordError,
    LeaseLostError,
    ReadOnlyStoreError,
)
from lash_store.leases import LeaseTerm
from lash_store.testing import ManualClock
from tests.support.databases import all_rows, run_script
from tests.support.leased import LEASED, JobFence, Leased

TTL = 1_000


@pytest.fixture(params=LEASED)
def leased(request: pytest.FixtureRequest, path: Path, clock: ManualClock) -> Iterator[Leased]:
    """One lease of each kind, whose time and ids the test owns."""
    leased = LEASED[request.param](path, clock)
    yield leased
    leased.close()


def claim(leased: Leased, owner_id: str = "ann", ttl_ms: int = TTL) -> Lease[Any]:
    lease = leased.claim(owner_id, ttl_ms)
    assert isinstance(lease, Lease)
    return lease


def require(leased: Leased, fence: Fence, tx: Any) -> None:
    leased.require(tx, fence)


def changed(fence: Fence, **values: Any) -> Fence:
    parts = {name: getattr(fence, name) for name in ("key", "owner_id", "token", "fencing_token")}
    return type(fence)(**{**parts, **values})


def test_k_lease_1_the_first_claim_is_term_one(leased: Leased, clock: ManualClock) -> None:
    lease = claim(leased)
    assert lease.fence == leased.fence(leased.key, "ann", "token-1", 1)
    assert (lease.claimed_at_ms, lease.expires_at_ms) == (clock.now_ms(), clock.now_ms() + TTL)
    assert (lease.key, lease.owner_id, lease.fencing_token) == (leased.key, "ann", 1)
    assert leased.current() == lease


@pytest.mark.parametrize("after_ms", [TTL, TTL + 1, 10 * TTL])
@pytest.mark.parametrize("owner_id", ["ann", "bob"])
def test_k_lease_1_an_expired_lease_gives_a_new_term(
    leased: Leased, clock: ManualClock, after_ms: int, owner_id: str
) -> None:
    first = claim(leased)
    clock.advance(after_ms)
    assert leased.current() is None
    second = claim(leased, owner_id)
    assert second.fencing_token == first.fencing_token + 1
    assert second.fence.token != first.fence.token
    assert second.claimed_at_ms == clock.now_ms()
    assert second.expires_at_ms == clock.now_ms() + TTL


def test_k_lease_1_a_released_lease_gives_a_new_term(leased: Leased) -> None:
    first = claim(leased)
    leased.release(first.fence)
    second = claim(leased)
    assert (second.fencing_token, second.fence.token) == (2, "token-2")


@pytest.mark.parametrize("after_ms", [0, 1, TTL - 1])
def test_k_lease_1_the_live_owner_that_claims_again(
    leased: Leased, clock: ManualClock, after_ms: int
) -> None:
    """It re-enters its term where the table says so, and gets a new one elsewhere."""
    first = claim(leased)
    clock.advance(after_ms)
    again = claim(leased, ttl_ms=5 * TTL)
    assert again.expires_at_ms == clock.now_ms() + 5 * TTL
    if leased.reentrant:
        assert (again.fence, again.claimed_at_ms) == (first.fence, first.claimed_at_ms)
    else:
        assert (again.fencing_token, again.claimed_at_ms) == (2, clock.now_ms())
        with pytest.raises(LeaseLostError, match="superseded"):
            leased.renew(first.fence, TTL)


@pytest.mark.parametrize("after_ms", [0, 1, TTL - 1])
def test_k_lease_2_another_live_owner_is_a_refusal_value(
    leased: Leased, clock: ManualClock, path: Path, after_ms: int
) -> None:
    lease = claim(leased)
    clock.advance(after_ms)
    before = all_rows(path)
    held = leased.claim("bob", TTL)
    assert held == LeaseHeld(leased.key, "ann", 1, lease.claimed_at_ms, lease.expires_at_ms)
    assert all_rows(path) == before


@pytest.mark.parametrize("after_ms", [0, 1, TTL - 1])
def test_k_lease_3_the_live_term_is_renewed(
    leased: Leased, clock: ManualClock, after_ms: int
) -> None:
    lease = claim(leased)
    clock.advance(after_ms)
    renewed = leased.renew(lease.fence, 2 * TTL)
    assert type(renewed) is type(lease)
    assert renewed.fence == lease.fence
    assert renewed.claimed_at_ms == lease.claimed_at_ms
    assert renewed.expires_at_ms == clock.now_ms() + 2 * TTL
    assert leased.current() == renewed


def test_k_lease_3_a_renewal_may_also_shorten(leased: Leased, clock: ManualClock) -> None:
    lease = claim(leased)
    assert leased.renew(lease.fence, 1).expires_at_ms == clock.now_ms() + 1


Lose = Callable[[Leased, ManualClock], Fence]


def expired(leased: Leased, clock: ManualClock) -> Fence:
    fence: Fence = claim(leased).fence
    clock.advance(TTL)
    return fence


def long_expired(leased: Leased, clock: ManualClock) -> Fence:
    fence: Fence = claim(leased).fence
    clock.advance(TTL + 1)
    return fence


def superseded(leased: Leased, clock: ManualClock) -> Fence:
    fence = expired(leased, clock)
    claim(leased, "bob")
    return fence


def superseded_by_itself(leased: Leased, clock: ManualClock) -> Fence:
    fence = expired(leased, clock)
    claim(leased, "ann")
    return fence


def superseded_and_released(leased: Leased, clock: ManualClock) -> Fence:
    fence = expired(leased, clock)
    leased.release(claim(leased, "bob").fence)
    return fence


def released(leased: Leased, clock: ManualClock) -> Fence:
    fence: Fence = claim(leased).fence
    leased.release(fence)
    return fence


def never_claimed(leased: Leased, clock: ManualClock) -> Fence:
    return leased.fence(leased.key, "ann", "x", 1)


def of_another_key(leased: Leased, clock: ManualClock) -> Fence:
    return changed(claim(leased).fence, key="other")


def ahead_of_the_row(leased: Leased, clock: ManualClock) -> Fence:
    return changed(claim(leased).fence, fencing_token=2)


def behind_the_row(leased: Leased, clock: ManualClock) -> Fence:
    return changed(claim(leased).fence, fencing_token=0)


def with_another_token(leased: Leased, clock: ManualClock) -> Fence:
    return changed(claim(leased).fence, token="forged")


def with_a_token_behind(leased: Leased, clock: ManualClock) -> Fence:
    return changed(claim(leased).fence, token="zz")


def with_an_owner_before(leased: Leased, clock: ManualClock) -> Fence:
    return changed(claim(leased).fence, owner_id="aaa")


def with_another_owner(leased: Leased, clock: ManualClock) -> Fence:
    return changed(claim(leased).fence, owner_id="bob")


LOST: dict[Lose, str] = {
    expired: "expired",
    long_expired: "expired",
    superseded: "superseded",
    superseded_by_itself: "superseded",
    superseded_and_released: "superseded",
    released: "released",
    never_claimed: "never_claimed",
    of_another_key: "never_claimed",
    ahead_of_the_row: "never_claimed",
    behind_the_row: "superseded",
    with_another_token: "never_claimed",
    with_another_owner: "never_claimed",
    with_a_token_behind: "never_claimed",
    with_an_owner_before: "never_claimed",
}
every_lost_fence = pytest.mark.parametrize(
    ("lose", "reason"), LOST.items(), ids=[lose.__name__ for lose in LOST]
)


@every_lost_fence
def test_k_lease_3_no_other_term_is_renewed(
    leased: Leased, clock: ManualClock, path: Path, lose: Lose, reason: str
) -> None:
    fence = lose(leased, clock)
    before = all_rows(path)
    with pytest.raises(LeaseLostError) as refusal:
        leased.renew(fence, TTL)
    assert refusal.value.reason == reason
    assert all_rows(path) == before


@every_lost_fence
def test_k_lease_6_require_refuses_every_other_term(
    leased: Leased, clock: ManualClock, path: Path, lose: Lose, reason: str
) -> None:
    """And what the transaction wrote before is undone with it."""
    fence = lose(leased, clock)
    before = all_rows(path)

    def write_and_require(tx: Any) -> None:
        tx.connection.exec_driver_sql("CREATE TABLE scratch (id INTEGER)")
        tx.connection.exec_driver_sql("INSERT INTO scratch VALUES (1)")
        leased.require(tx, fence)

    with pytest.raises(LeaseLostError) as refusal:
        leased.transact(write_and_require)
    assert refusal.value.reason == reason
    assert all_rows(path) == before


@every_lost_fence
def test_k_lease_6_no_other_fence_holds(
    leased: Leased, clock: ManualClock, lose: Lose, reason: str
) -> None:
    fence = lose(leased, clock)
    now_ms = clock.now_ms()
    assert leased.read(lambda tx: tx.connection.scalar(select(fence.holds(now_ms=now_ms)))) == 0


def test_k_lease_6_require_lets_the_live_term_pass(leased: Leased, clock: ManualClock) -> None:
    lease = claim(leased)
    clock.advance(TTL - 1)
    leased.transact(lambda tx: leased.require(tx, lease.fence))
    leased.read(lambda tx: leased.require(tx, lease.fence))


@pytest.mark.parametrize("after_ms", [0, TTL - 1, TTL, TTL + 1])
def test_k_lease_4_the_exact_term_is_released_live_or_expired(
    leased: Leased, clock: ManualClock, path: Path, after_ms: int
) -> None:
    fence = claim(leased).fence
    clock.advance(after_ms)
    assert leased.release(fence) is True
    row = leased.read(lambda tx: _row(tx, leased))
    assert row == (leased.key, None, None, 1, 0, 0)
    assert leased.current() is None


@pytest.mark.parametrize("lose", [lose for lose in LOST if lose not in (expired, long_expired)])
def test_k_lease_4_releasing_any_other_term_changes_nothing_and_says_so(
    leased: Leased, clock: ManualClock, path: Path, lose: Lose
) -> None:
    fence = lose(leased, clock)
    before = all_rows(path)
    assert leased.release(fence) is False
    assert all_rows(path) == before


def test_k_lease_5_the_error_says_what_was_expected_and_found(
    leased: Leased, clock: ManualClock
) -> None:
    fence = superseded(leased, clock)
    with pytest.raises(LeaseLostError) as refusal:
        leased.renew(fence, TTL)
    error = refusal.value
    now_ms = clock.now_ms()
    assert error.expected == fence
    assert error.actual == LeaseTerm(leased.key, "bob", "token-2", 2, now_ms, now_ms + TTL)
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.expected, copy.actual, copy.reason) == (error.expected, error.actual, error.reason)
    assert str(copy) == str(error)


def test_k_lease_5_never_claimed_has_no_actual_term(leased: Leased) -> None:
    with pytest.raises(LeaseLostError) as refusal:
        leased.renew(leased.fence(leased.key, "ann", "x", 1), TTL)
    assert refusal.value.actual is None
    assert "no term was ever claimed" in str(refusal.value)


def test_k_lease_6_a_stale_fence_changes_no_row_of_a_consumer(
    leased: Leased, clock: ManualClock
) -> None:
    notes = Table(
        "notes", MetaData(), Column("id", Integer, primary_key=True), Column("text", Text)
    )
    leased.transact(lambda tx: notes.create(tx.connection))
    leased.transact(
        lambda tx: tx.connection.execute(insert(notes).values(id=7, text="draft")).close()
    )
    lease = claim(leased)

    def write(text: str) -> Any:
        def work(tx: Any) -> int:
            holds = lease.fence.holds(now_ms=tx.now_ms)
            statement = update(notes).where(notes.c.id == 7, holds).values(text=text)
            return int(tx.connection.execute(statement).rowcount)

        return leased.transact(work)

    clock.advance(TTL - 1)
    assert write("in time") == 1
    for _ in range(2):
        clock.advance(1)
        assert write("too late") == 0
    claim(leased, "bob")
    assert write("superseded") == 0
    assert leased.read(lambda tx: tx.connection.scalar(select(notes.c.text))) == "in time"


def test_k_lease_7_a_ttl_of_zero_is_a_term_that_is_over(leased: Leased) -> None:
    lease = claim(leased, ttl_ms=0)
    assert lease.expires_at_ms == lease.claimed_at_ms
    assert leased.current() is None
    with pytest.raises(LeaseLostError, match="expired"):
        leased.renew(lease.fence, TTL)
    assert claim(leased, "bob").fencing_token == 2


def test_k_lease_7_renewing_for_zero_ends_the_term(leased: Leased) -> None:
    lease = claim(leased)
    leased.renew(lease.fence, 0)
    assert claim(leased, "bob").fencing_token == 2


def test_k_lease_7_an_end_too_large_saturates(leased: Leased, clock: ManualClock) -> None:
    assert claim(leased, ttl_ms=MAX_INT).expires_at_ms == MAX_INT
    clock.advance_to(MAX_INT - 1)
    assert leased.current() is not None
    clock.advance_to(MAX_INT)
    assert leased.current() is None


def test_the_fencing_number_survives_release_expiry_and_reopening(
    leased: Leased, clock: ManualClock
) -> None:
    for expected in range(1, 8):
        lease = claim(leased, f"owner-{expected}")
        assert lease.fencing_token == expected
        if expected % 2:
            leased.release(lease.fence)
        leased.close()
        clock.advance(TTL)
        leased.open()


def test_every_row_of_the_table_can_be_selected_and_told_live_from_free(
    leased: Leased, clock: ManualClock
) -> None:
    """The builders, composed, say what the operations say."""
    table = leased.fence.leases
    lease = claim(leased)

    def rows(condition: Any) -> Any:
        query = table.select_leases().where(condition)
        return leased.read(lambda tx: [tuple(row) for row in tx.connection.execute(query)])

    ends_ms = lease.expires_at_ms
    term = (leased.key, "ann", "token-1", 1, lease.claimed_at_ms, ends_ms)
    for now_ms, live in ((ends_ms - 1, True), (ends_ms, False), (ends_ms + 1, False)):
        assert rows(table.is_live(now_ms=now_ms)) == ([term] if live else [])
        assert rows(table.is_free(now_ms=now_ms)) == ([] if live else [term])
    leased.release(lease.fence)
    assert rows(table.is_live(now_ms=0)) == []
    assert rows(table.is_free(now_ms=0)) == [(leased.key, None, None, 1, 0, 0)]


@pytest.mark.parametrize("ttl_ms", [-1, MAX_INT + 1, True, None, 1.0, "1"])
def test_a_bad_ttl_is_refused_before_anything_is_written(
    leased: Leased, path: Path, ttl_ms: Any
) -> None:
    lease = claim(leased)
    before = all_rows(path)
    with pytest.raises(InvalidRecordError, match="ttl_ms = "):
        leased.claim("bob", ttl_ms)
    with pytest.raises(InvalidRecordError, match="ttl_ms = "):
        leased.renew(lease.fence, ttl_ms)
    assert all_rows(path) == before


@pytest.mark.parametrize("owner_id", ["", None, 7, b"a", "\ud800"], ids=ascii)
def test_a_bad_owner_is_refused_before_anything_is_written(
    leased: Leased, path: Path, owner_id: Any
) -> None:
    before = all_rows(path)
    with pytest.raises(InvalidRecordError, match="owner_id = "):
        leased.claim(owner_id, TTL)
    assert all_rows(path) == before


def test_a_fence_of_another_kind_is_refused(leased: Leased, path: Path) -> None:
    lease = claim(leased)
    others = [kind.fence for kind in LEASED.values() if kind.fence is not leased.fence]
    before = all_rows(path)
    wrong: list[Any] = [lease, None, "s", *(kind("s", "ann", "token-1", 1) for kind in others)]
    for fence in (*wrong, Fence("s", "ann", "token-1", 1)):
        with pytest.raises(InvalidRecordError, match="fence = "):
            leased.renew(fence, TTL)
        with pytest.raises(InvalidRecordError, match="fence = "):
            leased.release(fence)
        if not isinstance(fence, JobFence):  # which may be on a table beside ours
            with pytest.raises(InvalidRecordError, match="fence = "):
                leased.transact(partial(require, leased, fence))
    assert all_rows(path) == before


def test_writing_through_a_reader_is_refused(leased: Leased, path: Path) -> None:
    lease = claim(leased)
    before = all_rows(path)
    table = leased.fence.leases
    values: dict[str, Any] = {
        "key": leased.key,
        "owner_id": "ann",
        "token": lease.fence.token,
        "fencing_token": 1,
    }
    writes: list[Any] = [
        lambda tx: table.renew_lease.one(tx.cursor, **values, now_ms=0, expires_at_ms=1, ttl_ms=1),
        lambda tx: table.release_lease.run(tx.cursor, **values),
    ]
    for write in writes:
        with pytest.raises(ReadOnlyStoreError):
            leased.read(write)
    assert all_rows(path) == before


@pytest.mark.parametrize(
    "change",
    [
        {"owner_id": "NULL"},
        {"token": "x'00'"},
        {"owner_id": "x'00'"},
        {"fencing_token": "'one'"},
        {"claimed_at_ms": "1.5"},
    ],
)
def test_a_corrupt_row_is_a_typed_error_and_stays(
    leased: Leased, path: Path, change: dict[str, str]
) -> None:
    lease = claim(leased)
    ((column, value),) = change.items()
    name = getattr(leased.fence.leases, column).name
    run_script(path, f"UPDATE {leased.table} SET {name} = {value}")
    before = all_rows(path)
    with pytest.raises(CorruptRecordError, match=leased.table):
        leased.current()
    with pytest.raises((CorruptRecordError, LeaseLostError)):
        leased.renew(lease.fence, TTL)
    with pytest.raises(CorruptRecordError):
        leased.claim("bob", TTL)
    assert all_rows(path) == before


def test_the_highest_fencing_number_is_the_last(leased: Leased, path: Path) -> None:
    """It can't grow any more: the claim is refused, and not as if a number had been given twice."""
    claim(leased, ttl_ms=0)
    number = leased.fence.leases.fencing_token.name
    run_script(path, f"UPDATE {leased.table} SET {number} = {MAX_INT}")
    before = all_rows(path)
    with pytest.raises(CorruptRecordError):
        leased.claim("ann", TTL)
    assert all_rows(path) == before


@pytest.mark.parametrize("show", [repr, str, "{}".format, ascii])
def test_no_token_is_shown_whole(path: Path, leased: Leased, show: Callable[[object], str]) -> None:
    leased.release(claim(leased).fence)
    long = changed(claim(leased).fence, token="a-long-secret")
    with pytest.raises(LeaseLostError) as refusal:
        leased.renew(long, TTL)
    error = refusal.value
    for value in (long, error, error.args, Lease(long, 0, 1)):
        assert long.token not in show(value)
        assert "a-lo" in show(value)


@pytest.mark.parametrize("late_ms", [-1, 0, 1])
def test_k_lease_4_who_acts_for_the_last_time_ends_a_live_term_at_once(
    leased: Leased, clock: ManualClock, late_ms: int
) -> None:
    """``release_live``: required and released in one statement, or refused with the reason."""
    leases, fence = leases_of(leased.fence), claim(leased).fence
    for other in (
        changed(fence, token="other"),
        changed(fence, fencing_token=2),
        changed(fence, owner_id="bob"),
    ):
        before = all_rows(leased.path)
        with pytest.raises(LeaseLostError) as refused:
            leased.transact(lambda tx, other=other: leases.release_live(tx, other))
        assert refused.value.reason == "never_claimed"
        assert all_rows(leased.path) == before
    clock.advance(TTL + late_ms)
    before = all_rows(leased.path)
    if late_ms < 0:
        leased.transact(lambda tx: leases.release_live(tx, fence))
        assert leased.current() is None
        before = all_rows(leased.path)
    with pytest.raises(LeaseLostError) as refused:
        leased.transact(lambda tx: leases.release_live(tx, fence))
    assert refused.value.reason == ("released" if late_ms < 0 else "expired")
    assert all_rows(leased.path) == before


def _row(tx: Any, leased: Leased) -> tuple[Any, ...]:
    query = f"SELECT {leased.columns()} FROM {leased.table}"
    return tuple(tx.connection.exec_driver_sql(query).one())


class SetClock:
    """A clock that anybody sets, back too."""

    def __init__(self, now_ms: int) -> None:
        self.at_ms = now_ms

    def now_ms(self) -> int:
        return self.at_ms


@pytest.mark.parametrize("at_ms", [100_000, 99_999, 1, 0])
@pytest.mark.parametrize("ttl_ms", [50, 500, 5_000])
def test_k_lease_3_a_clock_that_was_set_back(path: Path, at_ms: int, ttl_ms: int) -> None:
    """A renewal never takes away what was claimed; with a shorter ttl it shortens."""
    clock = SetClock(100_000)
    with SessionStore.open(path, session_id="s", clock=clock) as store:
        lease = store.claim_lease(owner_id="ann", ttl_ms=500)
        store.enqueue_work(NewWork([1]))
        assert isinstance(lease, SessionLease)
        claim = store.claim_work(lease.fence, owner_id="ann", ttl_ms=500)
        assert claim is not None
        clock.at_ms = at_ms
        assert store.renew_lease(lease.fence, ttl_ms=ttl_ms).expires_at_ms == 100_000 + ttl_ms
        assert store.renew_claim(claim, ttl_ms=ttl_ms).expires_at_ms == 100_000 + ttl_ms
        most = store.renew_lease(lease.fence, ttl_ms=MAX_INT)
        assert most.expires_at_ms == MAX_INT
        clock.at_ms = 100_400
        assert store.renew_lease(lease.fence, ttl_ms=ttl_ms).expires_at_ms == 100_400 + ttl_ms
