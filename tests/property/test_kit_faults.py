"""The kit, where an adapter fails by itself, a promise is told away, or an order can't be played."""

from __future__ import annotations

import asyncio
import functools
import itertools
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

import pytest
from hypothesis.stateful import rule

from lash_store.errors import InvalidRecordError
from lash_store.testing import (
    Explored,
    ManualClock,
    OrderError,
    Violation,
    effect_machine,
    explore,
    lock_machine,
    point,
)


class Locks:
    """A lock that goes by its owner's name."""

    made: ClassVar[type[Any]]

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.by: str | None = None
        self.until_ms = 0

    def client(self, actor: str) -> Any:
        return type(self).made(self, actor)

    @classmethod
    def of(cls, client: type[Any]) -> type[Locks]:
        return type(client.__name__, (cls,), {"made": client})


class Client:
    def __init__(self, locks: Locks, actor: str) -> None:
        self.locks, self.actor = locks, actor

    @property
    def is_live(self) -> bool:
        return self.locks.until_ms > self.locks.clock.now_ms()

    def acquire(self, ttl_ms: int) -> Any:
        if self.is_live:
            return False
        self.locks.by, self.locks.until_ms = self.actor, self.locks.clock.now_ms() + ttl_ms
        return True

    def release(self) -> Any:
        if self.locks.by == self.actor:
            self.locks.by, self.locks.until_ms = None, 0
        return None


def within(seconds: float, play: Callable[[], object]) -> BaseException | None:
    """Return what it raises, in a thread that may hang."""
    found: list[BaseException | None] = []

    def run() -> None:
        try:
            play()
        except BaseException as error:  # noqa: BLE001 # reason: it is what is looked for
            found.append(error)
        else:
            found.append(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "it hangs"
    return found[0]


class Heartbeats:
    """Beats in a task of its own, which fails."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock, self.until_ms = clock, 0
        self.tasks = asyncio.TaskGroup()

    def client(self, _: str) -> Heartbeats:
        return self

    async def acquire(self, ttl_ms: int) -> bool:
        if self.until_ms > self.clock.now_ms():
            return False
        self.until_ms = self.clock.now_ms() + ttl_ms
        beating = self.beat()
        try:
            self.tasks.create_task(beating)
        except RuntimeError:
            beating.close()
            raise
        return True

    async def beat(self) -> None:
        raise RuntimeError("the heartbeat's own fault")

    async def release(self) -> None:
        self.until_ms = 0

    async def close(self) -> None:
        await self.tasks.__aexit__(None, None, None)


async def heartbeats(clock: ManualClock) -> Heartbeats:
    made = Heartbeats(clock)
    await made.tasks.__aenter__()
    return made


def test_an_adapter_whose_own_task_fails_is_told_of_and_hangs_nobody() -> None:
    machine = lock_machine(heartbeats)
    script = [("acquire", "ann", 1), ("wait", 5), ("acquire", "bob", 1)]
    for _ in range(50):
        found = within(20, lambda: machine.replay(script))
        assert found is not None
        told = repr(found) + "".join(getattr(found, "__notes__", ()))
        assert "the heartbeat's own fault" in told


TOKENS = itertools.count(1)


class ByToken(Client):
    """Lets its holder in again, by a token that it remembers."""

    token: int | None = None

    def acquire(self, ttl_ms: int) -> bool:
        holds = self.is_live and self.token is not None and self.locks.by == str(self.token)
        if self.is_live and not holds:
            return False
        if not holds:
            self.token = next(TOKENS)
        self.locks.by, self.locks.until_ms = (
            str(self.token),
            self.locks.clock.now_ms() + ttl_ms,
        )
        return True

    def release(self) -> None:
        if self.locks.by == str(self.token):
            self.locks.by, self.locks.until_ms = None, 0


@pytest.mark.parametrize("reentry", ["same", "new"])
def test_who_has_forgotten_its_token_may_be_refused_to_enter_again(reentry: Any) -> None:
    machine = lock_machine(Locks.of(ByToken), reentry=reentry)
    machine.replay([("acquire", "ann", 5), ("crash", "ann"), ("acquire", "ann", 5)])
    machine.run()


class Favours(Client):
    """Gives bob what another has, and releases for nobody else."""

    def acquire(self, ttl_ms: int) -> Any:
        if self.actor == "bob":
            self.locks.until_ms = 0
        return super().acquire(ttl_ms)

    def release(self) -> None:
        if self.locks.by != self.actor:
            raise PermissionError("not yours")
        super().release()


def test_a_release_that_was_refused_is_blamed_for_nothing() -> None:
    script = [("acquire", "ann", 5), ("release", "bob"), ("acquire", "bob", 5)]
    for tolerate in ((), ("foreign-release",)):
        with pytest.raises(Violation) as found:
            lock_machine(Locks.of(Favours), tolerate=tolerate).replay(script)
        assert found.value.name == "two-holders"
        assert "refused (PermissionError: not yours)" in str(found.value)


class Prolongs(Client):
    """What is over may be renewed, as long as nobody has taken it."""

    def renew(self, ttl_ms: int) -> bool:
        if self.locks.by != self.actor:
            return False
        self.locks.until_ms = self.locks.clock.now_ms() + ttl_ms
        return True


class Silent(Client):
    def release(self) -> None:
        raise ConnectionError("no answer")


def test_what_is_tolerated_is_gone_on_from() -> None:
    machine = lock_machine(Locks.of(Prolongs), tolerate=("stale-renewal",))
    machine.replay([("acquire", "ann", 1), ("wait", 1), ("renew", "ann", 1), ("acquire", "bob", 1)])
    machine.run()
    machine = lock_machine(Locks.of(Silent), tolerate=("release-refused",))
    machine.replay([("acquire", "ann", 5), ("release", "ann"), ("acquire", "bob", 1)])
    machine.run()


class Row:
    def __repr__(self) -> str:
        raise RuntimeError("it is not bound to a Session")


class GivesRows(Client):
    def acquire(self, ttl_ms: int) -> Any:
        return Row() if super().acquire(ttl_ms) else None


class Misspelt(Client):
    def acquire(self, ttl_ms: int) -> Any:
        return self.lock.take(ttl_ms)  # type: ignore[attr-defined] # reason: that is the test


def test_an_adapters_own_fault_is_shown_as_such() -> None:
    lock_machine(Locks.of(GivesRows)).run()
    with pytest.raises(Violation) as found:
        lock_machine(Locks.of(Misspelt)).run()
    assert "AttributeError: 'Misspelt' object has no attribute 'lock'" in str(found.value)
    assert isinstance(found.value.__cause__, AttributeError)


class AlwaysGives(Client):
    def acquire(self, ttl_ms: int) -> bool:
        self.locks.until_ms = 0
        return bool(super().acquire(ttl_ms))


@pytest.mark.parametrize("how", ["run", "TestCase"])
def test_what_is_found_is_shown_by_the_fewest_steps(how: str) -> None:
    machine: Any = lock_machine(Locks.of(AlwaysGives))
    with pytest.raises(Violation) as found:
        machine.run() if how == "run" else machine.TestCase("runTest").runTest()
    assert len(found.value.script) == 2
    with pytest.raises(Violation):
        machine.replay(found.value.script)


class FailsOver(Locks):
    is_broken = False


class Promoted(Client):
    @property
    def is_live(self) -> bool:
        return super().is_live and not getattr(self.locks, "is_broken", False)


FailsOver.made = Promoted


class OwnRules(lock_machine(FailsOver)):  # type: ignore[misc] # reason: it is a class
    @rule()
    def fail_over(self) -> None:
        self.do("failover")

    def do_failover(self) -> None:
        self.it.is_broken = True


def test_a_step_of_ones_own_stands_in_what_is_played_again() -> None:
    with pytest.raises(Violation) as found:
        OwnRules.run()
    assert ("failover",) in found.value.script
    with pytest.raises(Violation):
        OwnRules.replay(found.value.script)


class Table:
    owner: str | None = None


def acquiring(who: str, connects_s: float, before: str = "update") -> Callable[[Table], bool]:
    def call(table: Table) -> bool:
        time.sleep(connects_s)
        point("select" if before == "update" else before)
        seen = table.owner
        point(before)
        if seen is not None:
            return False
        table.owner = who
        return True

    return call


def one_holder(_: Table, results: list[Any]) -> None:
    assert results.count(True) == 1, results


def test_explore_tells_of_a_call_that_was_slow_to_begin() -> None:
    slow = [acquiring("ann", 0.2), acquiring("bob", 0)]
    assert explore(Table, slow, one_holder).waits
    with pytest.raises(OrderError) as found:
        explore(Table, slow, one_holder, patience_s=2)
    for calls in (slow, slow[::-1]):
        with pytest.raises(OrderError) as again:
            explore(Table, calls, one_holder, only=found.value.order)
        assert again.value.order == found.value.order


def test_explore_plays_the_order_that_is_asked_for_or_says_so() -> None:
    calls = [acquiring("ann", 0), acquiring("bob", 0)]
    with pytest.raises(InvalidRecordError, match="at step 2 call 0 is over"):
        explore(Table, calls, one_holder, only=[0, 0, 0, 1, 1])
    wrong: list[Any] = [0, -1, float("nan"), "x", 1e9, None]
    for patience_s in wrong:
        with pytest.raises(InvalidRecordError, match="patience_s"):
            explore(Table, calls, one_holder, patience_s=patience_s)
    for most in (1, 5):
        none: Callable[..., None] = lambda *_: None  # noqa: E731 # reason: a check that passes
        assert explore(Table, calls, none, most=most) == Explored(most, 0, is_cut_off=True)
    assert not explore(Table, calls, none).is_cut_off


def test_explore_stops_at_a_point_of_ones_own_that_is_called_begin() -> None:
    calls = [acquiring(who, 0, before="begin") for who in ("ann", "bob")]
    with pytest.raises(OrderError):
        explore(Table, calls, one_holder)


class Steps:
    """Claims a step for a while, which is in a table: it outlasts whoever has claimed it."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.known: dict[str, tuple[str, Any]] = {}
        self.claimed: dict[str, int] = {}

    def run(self, key: str, request: str, function: Callable[[], Any]) -> Any:
        if key in self.known:
            if self.known[key][0] != request:
                raise RuntimeError("another request")
            return self.known[key][1]
        if self.claimed.get(key, 0) > self.clock.now_ms():
            raise RuntimeError("in progress")
        self.claimed[key] = self.clock.now_ms() + 30_000
        try:
            outcome = function()
        except Exception:
            del self.claimed[key]
            raise
        self.known[key] = (request, outcome)
        return outcome

    def lapse(self) -> None:
        self.clock.advance(30_000)


def test_a_step_that_is_claimed_for_a_while_lapses() -> None:
    effect_machine(Steps).run()


def traced(function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(function)
    def call(*arguments: Any) -> Awaitable[Any]:
        return function(*arguments)

    return call


class Grouped:
    """Runs what it is given in a group of tasks, behind a decorator that is no coroutine function."""

    def __init__(self, _: ManualClock) -> None:
        self.known: dict[str, tuple[str, Any]] = {}

    @traced
    async def run(self, key: str, request: str, function: Callable[[], Awaitable[Any]]) -> Any:
        if key not in self.known:
            try:
                async with asyncio.TaskGroup() as tasks:
                    task = tasks.create_task(self.awaited(function))
            except ExceptionGroup as group:
                raise group.exceptions[0] from None
            self.known[key] = (request, task.result())
        if self.known[key][0] != request:
            raise RuntimeError("another request")
        return self.known[key][1]

    async def awaited(self, function: Callable[[], Awaitable[Any]]) -> Any:
        return await function()


def test_an_asynchronous_run_behind_a_decorator_and_in_a_group_of_tasks() -> None:
    effect_machine(Grouped).run()
