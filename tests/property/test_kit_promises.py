"""What the kit promises of itself: found or not, by which name, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis.stateful import rule

from lash_store import NewWork, SessionStore
from lash_store.errors import InvalidRecordError
from lash_store.testing import (
    OrderError,
    Parked,
    Violation,
    commit_machine,
    effect_machine,
    explore,
    kill_at_each_statement,
    lock_machine,
    log_machine,
    point,
)
from lash_store.testing.crashing import fail_at_each_statement
from lash_store.testing.lock_machine import LockMachine


class Locks:
    """Sound, but for what a subclass of its client says."""

    client_of: Any

    def __init__(self, clock: Any) -> None:
        self.clock, self.by, self.until, self.number = clock, "", 0, 0

    def client(self, actor: str) -> Any:
        return self.client_of(self, actor)


class Client:
    def __init__(self, locks: Locks, actor: str) -> None:
        self.locks, self.actor, self.mine = locks, actor, 0

    @property
    def left_ms(self) -> int:
        return int(self.locks.until - self.locks.clock.now_ms())

    def acquire(self, ttl_ms: int) -> bool:
        if self.left_ms > 0:
            return False
        self.locks.number += 1
        self.mine = self.locks.number
        self.locks.by, self.locks.until = self.actor, self.locks.clock.now_ms() + ttl_ms
        return True

    def renew(self, ttl_ms: int) -> Any:
        if self.locks.by != self.actor or self.left_ms <= 0:
            return False
        self.locks.until = self.locks.clock.now_ms() + ttl_ms
        return True

    def release(self) -> None:
        if self.locks.by == self.actor:
            self.locks.until = 0


Locks.client_of = Client


def locks_of(client: type[Client]) -> type[Locks]:
    return type("Locks", (Locks,), {"client_of": client})


def found(machine: Any, **options: Any) -> str | None:
    """The name of what a machine finds."""
    try:
        machine.run(settings(database=None, **options))
    except Violation as violation:
        return violation.name
    return None


class Silent(Client):
    def renew(self, ttl_ms: int) -> Any:
        super().renew(ttl_ms)


def test_a_renewal_that_says_nothing_at_the_very_end_is_none_of_either() -> None:
    machine = lock_machine(locks_of(Silent), edge="either")
    machine.replay([("acquire", "Ann", 1), ("end", 0), ("renew", "Ann", 1), ("acquire", "ann", 1)])
    assert found(machine) is None


class LateByOne(Client):
    def renew(self, ttl_ms: int) -> Any:
        if self.locks.by != self.actor or self.left_ms < 0:
            return False
        self.locks.until = self.locks.clock.now_ms() + ttl_ms
        return True


def test_a_renewal_at_the_very_end_of_a_term_is_found() -> None:
    assert found(lock_machine(locks_of(LateByOne)), derandomize=True) in (
        "stale-renewal",
        "two-holders",
    )


class Forgetful(Client):
    def renew(self, ttl_ms: int) -> Any:
        renewed = super().renew(ttl_ms)
        self.mine = 0
        return renewed

    def fence(self) -> int:
        return self.mine


def test_a_number_that_a_renewal_spoils_is_found() -> None:
    with pytest.raises(Violation, match="lower number") as seen:
        lock_machine(locks_of(Forgetful)).replay([("acquire", "Ann", 9), ("renew", "Ann", 9)])
    assert seen.value.name == "number"


class Counts(Client):
    """A number of its own at each renewal, which nobody else hears of."""

    def renew(self, ttl_ms: int) -> Any:
        renewed = super().renew(ttl_ms)
        self.mine += bool(renewed)
        return renewed

    def fence(self) -> int:
        return self.mine


def test_a_number_that_two_terms_have_is_found() -> None:
    script = [("acquire", "Ann", 1), ("renew", "Ann", 5), ("end", 0), ("acquire", "ann", 1)]
    with pytest.raises(Violation, match="comes after term") as seen:
        lock_machine(locks_of(Counts)).replay(script)
    assert seen.value.name == "number"


class RunsAnew:
    def __init__(self, _: Any) -> None:
        self.outcomes = dict[str, tuple[str, Any]]()

    def run(self, key: str, request: str, function: Any) -> Any:
        if key not in self.outcomes or self.outcomes[key][0] != request:
            self.outcomes[key] = (request, function())
        return self.outcomes[key][1]


def test_what_can_not_be_reopened_has_forgotten_nothing() -> None:
    assert found(effect_machine(RunsAnew)) == "ran-twice"
    assert found(effect_machine(RunsAnew, tolerate=["ran-twice"])) is None


def test_several_faults_are_one_violation_and_the_others_are_noted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Faulty(Locks):
        def holder(self) -> Any:
            return "nobody"

    machine = lock_machine(Faulty)
    with pytest.raises(Violation) as one:
        machine.replay([("acquire", "Ann", 9)])
    other = ArithmeticError("of its own")

    def found_both(*_: Any, **__: Any) -> None:
        # As Hypothesis does, which finds a second one only by luck.
        raise ExceptionGroup("2 distinct failures", [other, one.value])

    monkeypatch.setattr("lash_store.testing.machine.run_state_machine_as_test", found_both)
    with pytest.raises(Violation) as seen:
        machine.run()
    assert seen.value.name == "holder"
    assert seen.value.__notes__ == [f"found as well: {other!r}"]


def test_what_an_adapter_raises_as_it_is_looked_at_says_in_which_steps() -> None:
    class Faulty(Locks):
        def holder(self) -> Any:
            raise KeyError("broken")

    with pytest.raises(KeyError) as seen:
        lock_machine(Faulty).replay([("acquire", "Ann", 9)])
    assert seen.value.__notes__ == ["in the steps [('acquire', 'Ann', 9)]"]


def test_a_write_needs_a_value() -> None:
    class Writes(Client):
        def write(self, value: str) -> None:
            """Nobody could see it."""

    with pytest.raises(InvalidRecordError, match=r"value\(\)"):
        lock_machine(locks_of(Writes)).run()


class OwnLocks(LockMachine):
    subject = "Locks"
    make = staticmethod(Locks)

    @rule()
    def twice(self) -> None:
        self.do("acquire", "ann", 1)


def test_a_machine_is_a_class_that_type_checkers_know() -> None:
    OwnLocks.run(settings(max_examples=5, database=None))
    case: Any = OwnLocks.TestCase
    assert case.runTest.is_hypothesis_test  # or pytest shows no statistics of it


class LastOneWins:
    def __init__(self, _: Any) -> None:
        self.revision, self.state, self.made = 0, None, dict[str, Any]()

    def load(self) -> Any:
        return self.revision, self.state

    def commit(self, key: str, base: int, state: Any) -> int:
        if key not in self.made:
            self.revision, self.state = self.revision + 1, state
            self.made[key] = (base, state, self.revision)
        elif self.made[key][:2] != (base, state):
            raise ValueError("used")
        return int(self.made[key][2])


class CommitsAgain(LastOneWins):
    def commit(self, key: str, base: int, state: Any) -> int:
        if base != self.revision and key not in self.made:
            raise ValueError("from an old revision")
        self.revision, self.state = self.revision + 1, state
        self.made[key] = (base, state, self.revision)
        return self.revision


class AppendsAgain:
    def __init__(self, _: Any) -> None:
        self.events = dict[str, list[tuple[int, str]]]()

    def append(self, stream: str, event: str, key: str | None) -> int:  # reason: it ignores it
        events = self.events.setdefault(stream, [])
        events.append((len(events) + 1, event))
        return len(events)

    def read(self, stream: str, after: int) -> list[tuple[int, str]]:
        return [each for each in self.events.get(stream, []) if each[0] > after]


class Forgets:
    def __init__(self, _: Any) -> None:
        self.outcomes = dict[str, tuple[str, Any]]()

    def run(self, key: str, request: str, function: Any) -> Any:
        if key in self.outcomes:
            if self.outcomes[key][0] != request:
                raise ValueError("another request")
            return self.outcomes[key][1]
        given = function()
        self.outcomes[key] = (request, given)
        return given

    def reopen(self) -> None:
        self.outcomes.clear()


@pytest.mark.parametrize(
    ("machine", "tolerated"),
    [
        (commit_machine(LastOneWins, tolerate=["lost-update"]), "lost-update"),
        (
            commit_machine(CommitsAgain, tolerate=["committed-twice", "key-reused"]),
            "committed-twice",
        ),
        (log_machine(AppendsAgain, tolerate=["wrong-receipt", "key-reused"]), "wrong-receipt"),
        (effect_machine(Forgets, tolerate=["forgotten"]), "forgotten"),
    ],
    ids=["commits", "commits again", "logs", "effects"],
)
def test_a_run_goes_on_past_what_is_tolerated(machine: Any, tolerated: str) -> None:
    assert found(machine) is None
    intolerant = {
        "lost-update": commit_machine(LastOneWins),
        "committed-twice": commit_machine(CommitsAgain, tolerate=["key-reused"]),
        "wrong-receipt": log_machine(AppendsAgain, tolerate=["key-reused"]),
        "forgotten": effect_machine(Forgets),
    }[tolerated]
    assert found(intolerant) == tolerated


class Swaps(AppendsAgain):
    def read(self, stream: str, after: int) -> list[tuple[int, str]]:
        events = [event for _, event in self.events.get(stream, [])]
        if len(events) > 1:
            events[:2] = reversed(events[:2])
        return [each for each in enumerate(events, 1) if each[0] > after]


def test_a_log_that_changes_the_order_has_appended_nothing_twice() -> None:
    with pytest.raises(Violation) as seen:
        log_machine(Swaps).replay([("append", "a", "x", None), ("append", "a", "y", None)])
    assert seen.value.name == "read"


class Hangs:
    def __init__(self, _: Any) -> None:
        pass

    def client(self, _: str) -> Any:
        return self

    async def acquire(self, _: int) -> None:
        await asyncio.Event().wait()

    async def release(self) -> None:
        """Never come to."""

    async def close(self) -> None:
        """Behind what hangs, in the same task."""


@pytest.mark.posix("has signals")
def test_an_asynchronous_call_that_hangs_is_interrupted_once() -> None:
    class TimedOut(BaseException):
        pass

    def alarm(*_: object) -> None:
        raise TimedOut

    before = signal.signal(signal.SIGALRM, alarm)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        begun_s = time.monotonic()
        with pytest.raises(TimedOut):
            lock_machine(Hangs).replay([("acquire", "Ann", 9)])
        assert time.monotonic() - begun_s < 10
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not [each for each in threading.enumerate() if each.name == "machine-loop"]


def two(path: Path, done: list[str]) -> None:
    with SessionStore.open(path, session_id="s") as store, store.begin() as tx:
        tx.enqueue_work(NewWork(["one"]))
        done.append("one")
        tx.enqueue_work(NewWork(["two"]))


@pytest.mark.canonical("counts the statements in a file of one kind")
def test_a_call_inside_another_ones_block_stops_where_it_does_alone(tmp_path: Path) -> None:
    alone, inside = list[str](), list[str]()
    with Parked(lambda: two(tmp_path / "a.db", alone), at="insert", nth=3):
        assert alone == ["one"]
    with (
        Parked(lambda: two(tmp_path / "b.db", []), at="commit"),
        Parked(lambda: two(tmp_path / "c.db", inside), at="insert", nth=3),
    ):
        assert inside == ["one"]


def fails_to_close(_: object) -> None:
    raise ValueError("closing")


def test_closing_stands_not_in_the_place_of_what_an_order_or_a_fault_shows() -> None:
    def call(_: object) -> None:
        point("a")

    def check(*_: object) -> None:
        raise AssertionError("what was found")

    with pytest.raises(OrderError, match="what was found") as seen:
        explore(list, [call, call], check, close=fails_to_close)
    assert "closing" in str(seen.value.error.__notes__)
    with pytest.raises(AssertionError, match="what was found") as failed:
        fail_at_each_statement(list, call, check, close=fails_to_close)
    assert "closing" in str(failed.value.__notes__)


def test_what_a_check_raises_of_its_own_says_in_which_order() -> None:
    def call(_: object) -> None:
        point("a")

    def check(_: object, results: list[Any]) -> None:
        raise TypeError(repr(results))

    with pytest.raises(TypeError) as seen:
        explore(list, [call, call], check)
    assert "only=[" in str(seen.value.__notes__)


@pytest.mark.posix("forks")
def test_nothing_to_kill_is_no_success() -> None:
    with pytest.raises(InvalidRecordError, match="no place that it could be killed at"):
        kill_at_each_statement(lambda _: None, lambda *_: None)


@pytest.mark.posix("forks")
def test_a_child_does_not_outlive_who_was_interrupted_as_it_waited(tmp_path: Path) -> None:
    class TimedOut(BaseException):
        pass

    def alarm(*_: object) -> None:
        raise TimedOut

    def work(_: Path) -> None:
        (tmp_path / "child").write_text(str(os.getpid()))
        time.sleep(60)

    before = signal.signal(signal.SIGALRM, alarm)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        with pytest.raises(TimedOut):
            kill_at_each_statement(work, lambda *_: None)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "child").read_text()), 0)
