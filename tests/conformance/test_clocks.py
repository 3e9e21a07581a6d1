"""Clocks that jump, and clocks of other machines: what holds, and what does not."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from lash_store import Lease, LeaseHeld, SessionLease, SessionStore
from lash_store._stores.holding import Held
from lash_store.errors import InvalidRecordError, LeaseLostError
from lash_store.testing import JumpingClock, ManualClock, SkewedClock
from tests.support.sessions import lease_of

HOUR, TTL = 3_600_000, 60_000

pytestmark = pytest.mark.canonical("opens stores with clocks of their own")


def stores(path: Path, clock: ManualClock, skew_ms: int) -> tuple[SessionStore, SessionStore]:
    """The stores of two machines, the second of which has another time."""
    mine = SessionStore.open(path, session_id="s", clock=clock)
    theirs = SessionStore.open(path, session_id="s", clock=SkewedClock(clock, skew_ms))
    return mine, theirs


def test_a_jumping_clock() -> None:
    clock = JumpingClock(10**12)
    assert clock.advance(5) == clock.now_ms() == 10**12 + 5
    assert clock.jump(-HOUR) == clock.now_ms() == 10**12 + 5 - HOUR
    assert clock.steady_ms() == 10**12 + 5
    assert clock.jump(2 * HOUR) == 10**12 + 5 + HOUR
    assert clock.steady_ms() == 10**12 + 5
    for bad in (1.5, "1", None):
        with pytest.raises(InvalidRecordError):
            clock.jump(bad)  # type: ignore[arg-type] # reason: that is the test


def test_a_skewed_clock() -> None:
    clock = ManualClock(10**12)
    ahead, behind = SkewedClock(clock, HOUR), SkewedClock(clock, -HOUR)
    assert (ahead.now_ms(), behind.now_ms()) == (10**12 + HOUR, 10**12 - HOUR)
    clock.advance(1)
    assert ahead.now_ms() == 10**12 + HOUR + 1
    assert ahead.steady_ms() == behind.steady_ms() == clock.steady_ms()


def test_a_machine_that_is_ahead_takes_over_at_once_and_fencing_holds(path: Path) -> None:
    """What a skew moves is when somebody may take over; who is fenced off stays fenced off."""
    clock = ManualClock(10**12)
    mine, theirs = stores(path, clock, HOUR)
    before = lease_of(mine, "ann", TTL)
    after = theirs.claim_lease(owner_id="bob", ttl_ms=TTL)
    assert isinstance(after, SessionLease)  # by its clock the term is over
    assert after.fencing_token == before.fencing_token + 1
    with pytest.raises(LeaseLostError, match="superseded"):
        mine.renew_lease(before.fence, ttl_ms=TTL)
    # And for mine the new term lasts an hour longer than it was claimed for.
    clock.advance(TTL + HOUR - 1)
    assert isinstance(mine.claim_lease(owner_id="ann", ttl_ms=TTL), LeaseHeld)
    clock.advance(1)
    assert isinstance(mine.claim_lease(owner_id="ann", ttl_ms=TTL), Lease)
    for each in (mine, theirs):
        each.close()


def test_a_machine_that_is_behind_waits_longer(path: Path) -> None:
    clock = ManualClock(10**12)
    mine, theirs = stores(path, clock, -HOUR)
    lease_of(mine, "ann", TTL)
    clock.advance(TTL)
    assert isinstance(theirs.claim_lease(owner_id="bob", ttl_ms=TTL), LeaseHeld)
    clock.advance(HOUR)
    assert isinstance(theirs.claim_lease(owner_id="bob", ttl_ms=TTL), Lease)
    for each in (mine, theirs):
        each.close()


def renewed(held: Held[SessionLease], times: int) -> None:
    """Wait for what the keeper has asked for, on a thread of the library."""
    end_s = time.monotonic() + 20
    while held.renewals < times:
        assert time.monotonic() < end_s
        time.sleep(0.001)


@pytest.mark.parametrize("by_ms", [-HOUR, 24 * HOUR])
def test_a_clock_that_is_set_in_the_middle_of_a_hold(path: Path, by_ms: int) -> None:
    """Set back, it is renewed by the time that passes; set forward, it is over, and says so."""
    clock = JumpingClock()
    with SessionStore.open(path, session_id="s", clock=clock) as store:
        with store.hold(owner_id="ann", ttl_ms=TTL) as held:
            clock.advance(TTL // 2)
            renewed(held, 1)
            first = held.term.fencing_token
            clock.jump(by_ms)
            if by_ms < 0:
                for number in range(2, 8):
                    clock.advance(TTL // 2)
                    renewed(held, number)
                    held.check()
            else:
                assert isinstance(held.lost, LeaseLostError)
                later = store.claim_lease(owner_id="bob", ttl_ms=TTL)
                assert isinstance(later, SessionLease)
                assert later.fencing_token == first + 1
