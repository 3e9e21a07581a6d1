"""The kit, where it was once unjust, or silent: sound implementations, failing ones, its own tools."""

from __future__ import annotations

import itertools
import sys
import threading
from datetime import timedelta
from typing import Any, ClassVar

import pytest
from hypothesis import Phase, settings

from lash_store.errors import InvalidRecordError
from lash_store.testing import (
    History,
    JumpingClock,
    ManualClock,
    Parked,
    Violation,
    commit_machine,
    fail_at_each_statement,
    lock_machine,
    point,
    queue_machine,
)


class LockByName:
    """A lock whose owner's name is its proof: whoever comes back after a crash has it still."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.who: str | None = None
        self.until_ms = 0

    def client(self, actor: str) -> LockByNameClient:
        return LockByNameClient(self, actor)


class LockByNameClient:
    def __init__(self, lock: LockByName, actor: str) -> None:
        self.lock, self.actor = lock, actor

    def acquire(self, ttl_ms: int) -> bool:
        if self.lock.until_ms > self.lock.clock.now_ms():
            return False
        self.lock.who, self.lock.until_ms = self.actor, self.lock.clock.now_ms() + ttl_ms
        return True

    def check(self) -> None:
        if self.lock.who != self.actor or self.lock.until_ms <= self.lock.clock.now_ms():
            raise LookupError("not yours")

    def release(self) -> None:
        self.check()
        self.lock.who, self.lock.until_ms = None, 0

    def renew(self, ttl_ms: int) -> None:
        self.check()
        self.lock.until_ms = self.lock.clock.now_ms() + ttl_ms


class HeldToTheEnd(LockByName):
    """The same, whose terms include their last millisecond."""

    def client(self, actor: str) -> HeldToTheEndClient:
        return HeldToTheEndClient(self, actor)

    def holder(self) -> str | None:
        return self.who if self.until_ms >= self.clock.now_ms() else None


class HeldToTheEndClient(LockByNameClient):
    def acquire(self, ttl_ms: int) -> bool:
        if self.lock.who is not None and self.lock.until_ms >= self.lock.clock.now_ms():
            return False
        self.lock.who, self.lock.until_ms = self.actor, self.lock.clock.now_ms() + ttl_ms
        return True

    def release(self) -> None:
        if self.lock.who != self.actor or self.lock.until_ms < self.lock.clock.now_ms():
            raise LookupError("not yours")
        self.lock.who, self.lock.until_ms = None, 0

    renew: Any = None


def test_a_lock_whose_name_is_its_proof_is_not_accused() -> None:
    script = [("acquire", "ann", 5), ("crash", "ann"), ("renew", "ann", 10), ("wait", 5)]
    lock_machine(LockByName).replay([*script, ("acquire", "bob", 5)])
    lock_machine(LockByName).run()
    held = lock_machine(HeldToTheEnd, edge="held")
    held.replay([("acquire", "ann", 1), ("wait", 1), ("crash", "ann"), ("release", "ann")])
    held.run()


class LapsedMayComplete:
    """A claim that has run out may complete until another has the item; its return is refused."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.rows: list[list[Any]] = []
        self.numbers = itertools.count(1)

    def put(self, item: str) -> None:
        self.rows.append([item, None, 0])

    def claim(self, _: str) -> tuple[str, int] | None:
        for row in self.rows:
            if row[1] is None or row[2] <= self.clock.now_ms():
                row[1], row[2] = next(self.numbers), self.clock.now_ms() + 10
                return row[0], row[1]
        return None

    def row(self, handle: int, *, is_live: bool) -> list[Any]:
        for row in self.rows:
            if row[1] == handle and (not is_live or row[2] > self.clock.now_ms()):
                return row
        raise LookupError(handle)

    def complete(self, _: str, handle: int) -> None:
        self.rows.remove(self.row(handle, is_live=False))

    def abandon(self, _: str, handle: int) -> None:
        self.row(handle, is_live=True)[1] = None

    def lapse(self) -> None:
        self.clock.advance(10)


class LapsedMayRenew(LapsedMayComplete):
    """Or it may be renewed, and completes only so."""

    def complete(self, _: str, handle: int) -> None:
        self.rows.remove(self.row(handle, is_live=True))

    def renew(self, _: str, handle: int) -> None:
        self.row(handle, is_live=False)[2] = self.clock.now_ms() + 10


class RefusesRenewals(LapsedMayRenew):
    def renew(self, _: str, handle: int) -> Any:
        return False


@pytest.mark.parametrize(
    ("queue", "lapsed", "script"),
    [
        (LapsedMayComplete, "accepted", [("abandon", 0), ("complete", 0)]),
        (LapsedMayRenew, "refused", [("complete", 0), ("renew", 0), ("complete", 0)]),
        (LapsedMayRenew, "refused", [("complete", 0), ("renew", 0), ("claim", "bob")]),
    ],
)
def test_what_has_run_out_is_nobodys_until_another_has_it(
    queue: Any, lapsed: Any, script: list[tuple[Any, ...]]
) -> None:
    machine = queue_machine(queue, lapsed=lapsed)
    machine.replay([("put", "item-1"), ("claim", "ann"), ("lapse",), *script])


def test_what_was_refused_is_not_suspected_of_what_goes_wrong_later() -> None:
    """Who had lost the item tried to end it, and was refused: the renewal's refusal is its own."""
    script = [("put", "item-1"), ("claim", "ann"), ("lapse",), ("claim", "bob")]
    for stale in (("complete", 0), ("renew", 0), ("abandon", 0)):
        with pytest.raises(Violation) as found:
            queue_machine(RefusesRenewals, lapsed="refused").replay([*script, stale, ("renew", 1)])
        assert found.value.name == "renewal-refused"


def test_a_renewal_of_a_live_claim_may_not_be_refused() -> None:
    with pytest.raises(Violation) as found:
        queue_machine(RefusesRenewals, lapsed="refused").run()
    assert found.value.name == "renewal-refused"


def test_a_subclass_has_the_settings_of_its_machine() -> None:
    chosen = settings(max_examples=3, database=None, deadline=None)
    machine = lock_machine(LockByName, settings=chosen)
    subclass: Any = type("Sub", (machine,), {})
    assert repr(machine.TestCase.settings) == repr(subclass.TestCase.settings)
    assert machine.TestCase.settings.max_examples == 3
    assert Phase.explain not in machine.TestCase.settings.phases


def test_a_machine_has_the_settings_of_the_profile_that_is_loaded() -> None:
    """Without the deadline that Hypothesis has by default: an implementation may be on a real database."""
    before = settings.get_current_profile_name()
    settings.register_profile("of a consumer", max_examples=7, deadline=200)
    settings.load_profile("of a consumer")
    try:
        machine, own = (
            lock_machine(LockByName),
            lock_machine(LockByName, settings=settings(max_examples=3)),
        )
        hasty = lock_machine(LockByName, settings=settings(deadline=5_000))
    finally:
        settings.load_profile(before)
    found = [each.TestCase.settings for each in (machine, own, hasty)]
    assert [each.max_examples for each in found] == [7, 3, 7]
    assert [each.deadline for each in found] == [None, None, timedelta(seconds=5)]


def test_what_fails_as_it_begins_is_closed() -> None:
    class Down:
        closed = 0

        def __init__(self, _: ManualClock) -> None:
            pass

        async def load(self) -> Any:
            raise ConnectionError("down")

        async def commit(self, key: str, revision: int, state: Any) -> Any: ...

        async def close(self) -> None:
            Down.closed += 1

    threads = threading.active_count()
    for _ in range(5):
        with pytest.raises(ConnectionError):
            commit_machine(Down).replay([])
    assert (Down.closed, threading.active_count()) == (5, threads)


def test_closing_does_not_stand_in_the_place_of_what_was_found() -> None:
    class Closing(RefusesRenewals):
        def close(self) -> None:
            raise OSError("closing")

    with pytest.raises(Violation) as found:
        queue_machine(Closing).replay([("put", "item-1"), ("claim", "ann"), ("renew", 0)])
    assert any("closing" in note for note in found.value.__notes__)


def test_work_that_fails_by_itself_is_told() -> None:
    def fails(_: None) -> None:
        point("a")
        raise KeyError("of its own")

    def has_many(_: None) -> None:
        for at in range(10):
            point(f"p{at}")

    for work, why, most in (
        (fails, "failed by itself", 100),
        (has_many, "more places", 2),
        (lambda _: None, "no place", 100),
    ):
        with pytest.raises(InvalidRecordError, match=why):
            fail_at_each_statement(lambda: None, work, lambda it, error: None, most=most)


def test_a_parked_call_tells_its_own_error() -> None:
    def late() -> None:
        point("a")
        raise ValueError("late")

    def early() -> None:
        raise ValueError("early")

    with pytest.raises(ValueError, match="late"), Parked(late, at="a"):
        pass
    with pytest.raises(ZeroDivisionError), Parked(late, at="a"):
        _ = 1 / 0
    with pytest.raises(RuntimeError, match="never came") as never, Parked(early, at="a"):
        pass
    assert isinstance(never.value.__cause__, ValueError)


@pytest.mark.parametrize("by_ms", [-2_000_000_000_000, 2**63])
def test_a_jump_that_is_refused_moves_nothing(by_ms: int) -> None:
    clock = JumpingClock()
    before = clock.now_ms()
    for move in (clock.jump, clock.advance):
        with pytest.raises(InvalidRecordError):
            move(by_ms)
        assert clock.now_ms() == before


def test_a_history_that_is_looked_at_has_lost_nothing() -> None:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    history, most = History(), 0
    worker = threading.Thread(
        target=lambda: [history.call("w", "x", lambda: 1) for _ in range(3_000)]
    )
    try:
        worker.start()
        while worker.is_alive():
            found = len(history.operations)
            assert found >= most
            most = found
    finally:
        worker.join()
        sys.setswitchinterval(before)


class GivesTwiceOnce(LockByName):
    """By a race, say, which nobody sees again."""

    has_raced: ClassVar[bool] = False

    def client(self, actor: str) -> LockByNameClient:
        return Racing(self, actor)


class Racing(LockByNameClient):
    lock: Any

    def acquire(self, ttl_ms: int) -> bool:
        is_others = self.lock.who not in (None, self.actor)
        if (
            is_others
            and self.lock.until_ms > self.lock.clock.now_ms()
            and not type(self.lock).has_raced
        ):
            type(self.lock).has_raced = True
            return True
        return super().acquire(ttl_ms)


def test_what_was_seen_once_is_told_though_it_is_not_seen_again() -> None:
    """And not that whoever draws the steps would draw them otherwise each time."""
    GivesTwiceOnce.has_raced = False
    machine = lock_machine(
        GivesTwiceOnce, settings=settings(database=None, derandomize=True, max_examples=200)
    )
    with pytest.raises(Violation) as found:
        machine.run()
    assert found.value.name == "two-holders"
    assert any("by chance, or by a race" in note for note in found.value.__notes__)


class SaysDone:
    """A queue that says of each completion that it is done."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.items: list[str] = []
        self.had: dict[str, tuple[str, int]] = {}
        self.ended: set[str] = set()

    def put(self, item: str) -> None:
        self.items.append(item)

    def claim(self, worker: str) -> tuple[str, str] | None:
        now_ms = self.clock.now_ms()
        for item in self.items:
            if item not in self.ended and self.had.get(item, ("", 0))[1] <= now_ms:
                self.had[item] = worker, now_ms + 10
                return item, item
        return None

    def complete(self, worker: str, handle: str) -> bool:
        by, until_ms = self.had.get(handle, ("", 0))
        if by == worker and until_ms > self.clock.now_ms():
            self.ended.add(handle)
        return True

    def lapse(self) -> None:
        self.clock.advance(10)


def test_a_late_completion_that_is_said_to_be_done_is_found() -> None:
    """Whether or not it was: whoever is told so goes on as if it were."""
    machine = queue_machine(
        SaysDone, lapsed="refused", settings=settings(database=None, derandomize=True)
    )
    with pytest.raises(Violation) as found:
        machine.run()
    assert found.value.name == "stale-completion"
    assert "was told that" in found.value.text


class SaysTrue:
    """Commits that give no revision, but that it was made."""

    def __init__(self, _: ManualClock) -> None:
        self.revision, self.state = 0, ""

    def load(self) -> tuple[int, str]:
        return self.revision, self.state

    def commit(self, _: str, base: int, state: str) -> bool:
        if base != self.revision:
            raise LookupError(base)
        self.revision, self.state = self.revision + 1, state
        return True


def test_a_truth_value_is_no_revision() -> None:
    with pytest.raises(InvalidRecordError, match="must be the new revision"):
        commit_machine(SaysTrue, settings=settings(database=None, derandomize=True)).run()
