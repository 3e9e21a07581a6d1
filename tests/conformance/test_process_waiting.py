"""P-EVENT-9: waiting for events and ends, in threads, in asyncio, and across processes."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lash_store import AsyncProcessRegistry, ProcessRegistry, Success
from lash_store._kernel import watching
from lash_store.errors import (
    CorruptRecordError,
    InvalidRecordError,
    NestedTransactionError,
    NotFoundError,
    StoreClosedError,
)
from lash_store.process.waiting import EventSearch
from lash_store.testing import ManualClock
from tests.support.databases import apart, run_script
from tests.support.processes import Says, workers
from tests.support.registries import register, registration

LONG_MS = 20_000


@pytest.fixture(params=["file", "memory"])
def waiting(request: pytest.FixtureRequest, path: Path) -> Any:
    with ProcessRegistry.open(path if request.param == "file" else None) as registry:
        register(registry)
        yield registry
        assert not registry.watch.waiters, "a waiter was left behind"


class Waiter(threading.Thread):
    """A wait on a thread of its own, with when it ended and what it gave."""

    def __init__(self, wait: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._wait = wait
        self.result: Any = None
        self.start()

    def run(self) -> None:
        try:
            self.result = self._wait()
        except Exception as error:  # noqa: BLE001 # reason: the test looks at it
            self.result = error
        self.ended = time.monotonic()

    def finished(self) -> Any:
        self.join(30)
        assert not self.is_alive(), "still waiting"
        return self.result


def waiters_of(registry: AsyncProcessRegistry) -> list[Any]:
    assert registry._store is not None
    return list(registry._store.watch.waiters)


def waiters_on(registry: ProcessRegistry, count: int) -> None:
    """Let every waiter begin."""
    while len(registry.watch.waiters) < count:
        time.sleep(0.001)


def test_p_event_9_what_is_there_already_is_returned_at_once(waiting: ProcessRegistry) -> None:
    event = waiting.append_event("p", "tick", 1).event
    assert waiting.wait_event_after("p", "tick", timeout_ms=0) == event
    assert waiting.wait_event_after("p", "tick", 1, timeout_ms=0) is None
    assert waiting.await_process("p", timeout_ms=0) is None
    waiting.complete_process("p", Success({"x": 1}))
    assert waiting.await_process("p") == Success({"x": 1})


def test_p_event_9_a_wait_is_woken_by_its_event_and_by_no_other(waiting: ProcessRegistry) -> None:
    register(waiting, "q")
    waiting.append_event("p", "tick", "before")
    waiter = Waiter(lambda: waiting.wait_event_after("p", "tick", 1, timeout_ms=LONG_MS))
    waiters_on(waiting, 1)
    waiting.append_event("q", "tick", "another process")
    waiting.append_event("p", "wake", "another type")
    time.sleep(0.05)
    assert waiter.is_alive()
    event = waiting.append_event("p", "tick", "this one").event
    waiting.append_event("p", "tick", "too late")
    assert waiter.finished() == event


def test_p_event_9_a_writer_of_this_process_wakes_at_once(waiting: ProcessRegistry) -> None:
    """Without the poll: it is slowed down so far that only the announcement can have done it."""
    delays = []
    for at in range(5):
        waiter = Waiter(lambda at=at: waiting.wait_event_after("p", "tick", at, timeout_ms=LONG_MS))  # type: ignore[misc] # reason: bound per turn
        waiters_on(waiting, 1)
        waiting.append_event("p", "tick")
        appended = time.monotonic()
        waiter.finished()
        delays.append(waiter.ended - appended)
    assert min(delays) < 0.01


def test_p_event_9_a_writer_of_this_process_needs_no_poll(
    waiting: ProcessRegistry, monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    monkeypatch.setattr(watching, "POLL_S", 3_600.0)
    waiter = Waiter(lambda: waiting.await_process("p"))
    waiters_on(waiting, 1)
    waiting.complete_process("p", Success(1))
    assert waiter.finished() == Success(1)


def test_p_event_9_another_store_of_this_process_needs_no_poll(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "POLL_S", 3_600.0)
    with ProcessRegistry.open(path) as one, ProcessRegistry.open(path) as two:
        register(one)
        waiter = Waiter(lambda: one.await_process("p"))
        waiters_on(one, 1)
        two.complete_process("p", Success(1))
        assert waiter.finished() == Success(1)


def append_on_demand(say: Says, path: Path) -> None:
    with ProcessRegistry.open(path) as registry:
        say("ready")
        while say.wait() == "append":
            registry.append_event("p", "tick")
            say(time.monotonic())


@pytest.mark.canonical("a process of its own opens the path")
def test_p_event_9_a_writer_of_another_process_wakes_within_50_ms(path: Path) -> None:
    with ProcessRegistry.open(path) as registry:
        register(registry)
        with workers(1, append_on_demand, path) as (writer,):
            assert writer.receive() == "ready"
            delays = []
            for at in range(10):
                waiter = Waiter(lambda at=at: registry.wait_event_after("p", "tick", at))  # type: ignore[misc] # reason: bound per turn
                waiters_on(registry, 1)
                writer.pipe.send("append")
                appended = writer.receive()
                assert waiter.finished().sequence == at + 1
                delays.append(waiter.ended - appended)
    assert sorted(delays)[5] < 0.05  # the median: this machine has other things to do, too


def test_p_event_9_a_read_only_registry_can_wait(path: Path) -> None:
    with ProcessRegistry.open(path) as writer:
        register(writer)
        with ProcessRegistry.open(path, read_only=True) as reader:
            waiter = Waiter(lambda: reader.await_process("p", timeout_ms=LONG_MS))
            waiters_on(reader, 1)
            writer.complete_process("p", Success(1))
            assert waiter.finished() == Success(1)


def test_p_event_9_waiting_never_takes_the_write_lock(path: Path) -> None:
    """On a file; in memory one connection serves everything."""
    with ProcessRegistry.open(path) as waiting, apart(ProcessRegistry.open, path) as other:
        register(waiting)
        with other.begin() as tx:  # holds the lock throughout
            tx.append_event("p", "wake")
            assert waiting.await_process("p", timeout_ms=30) is None
            assert waiting.wait_event_after("p", "wake", timeout_ms=30) is None


def test_p_event_9_a_wait_inside_ones_own_transaction_is_refused(waiting: ProcessRegistry) -> None:
    with waiting.begin(), pytest.raises(NestedTransactionError):
        waiting.await_process("p", timeout_ms=10)


def test_p_event_9_refusals(waiting: ProcessRegistry, path: Path) -> None:
    for call in (
        lambda: waiting.wait_event_after("q", "tick", timeout_ms=10),
        lambda: waiting.await_process("q", timeout_ms=10),
    ):
        with pytest.raises(NotFoundError):
            call()
    bad: list[Any] = [
        lambda: waiting.wait_event_after("p", "", timeout_ms=1),
        lambda: waiting.wait_event_after("p", "tick", -1, timeout_ms=1),
        lambda: waiting.wait_event_after("", "tick", timeout_ms=1),
        lambda: waiting.await_process("p", timeout_ms=-1),
        lambda: waiting.await_process("p", timeout_ms=0.5),  # type: ignore[arg-type] # reason: that is the test
        lambda: waiting.await_process(7, timeout_ms=1),  # type: ignore[arg-type] # reason: the same
    ]
    for call in bad:
        with pytest.raises(InvalidRecordError):
            call()


def test_p_event_9_closing_the_store_ends_the_wait(path: Path) -> None:
    registry = ProcessRegistry.open(path)
    register(registry)
    waiter = Waiter(lambda: registry.await_process("p"))
    waiters_on(registry, 1)
    registry.close()
    assert isinstance(waiter.finished(), StoreClosedError)
    assert not registry.watch.waiters


def test_p_event_9_many_waiters_share_one_poll(waiting: ProcessRegistry) -> None:
    waiters = [Waiter(lambda: waiting.await_process("p")) for _ in range(50)]
    waiters_on(waiting, 50)
    timers = [each for each in threading.enumerate() if each.name == "lash-store-timer"]
    assert len(timers) <= 1
    waiting.complete_process("p", Success(1))
    assert {repr(waiter.finished()) for waiter in waiters} == {repr(Success(1))}


def test_p_event_9_events_of_other_types_are_not_decoded(path: Path) -> None:
    with ProcessRegistry.open(path) as registry:
        register(registry)
        for _ in range(3):
            registry.append_event("p", "wake")
        run_script(path, "UPDATE process_events SET event_json = 'broken'")
        assert registry.wait_event_after("p", "tick", timeout_ms=20) is None
        event = registry.append_event("p", "tick").event
        assert registry.wait_event_after("p", "tick") == event
        with pytest.raises(CorruptRecordError):
            registry.wait_event_after("p", "wake", timeout_ms=20)


def test_p_event_9_no_event_is_looked_at_twice(path: Path) -> None:
    with ProcessRegistry.open(path) as registry:
        register(registry)
        search = EventSearch("p", "tick", 0)
        for _ in range(4):
            registry.append_event("p", "wake")
        with registry.read() as tx:
            assert search(tx) is None
            assert not search.may_have(tx)
        event = registry.append_event("p", "tick").event
        with registry.read() as tx:
            assert search.may_have(tx)
            assert search(tx) == event


@pytest.mark.parametrize("longer", [0, 5])
@pytest.mark.parametrize("behind", [0, 2])
def test_p_ret_1_a_wait_begins_anew_where_its_process_does(
    registry: ProcessRegistry, clock: ManualClock, longer: int, behind: int
) -> None:
    """The new log is shorter than what the wait has seen of the old one, or longer."""
    register(registry)
    search = EventSearch("p", "wake", behind)
    for _ in range(3):
        registry.append_event("p", "tick")
    with registry.read() as tx:
        assert search(tx) is None
    registry.complete_process("p", Success({}))
    clock.advance(1)
    assert registry.prune_processes(registry.read_clock()).removed == 1
    register(registry)
    event = registry.append_event("p", "wake").event
    for _ in range(longer):
        registry.append_event("p", "tick")
    with registry.read() as tx:
        assert search.may_have(tx)
        assert search(tx) == event


@pytest.mark.parametrize("in_memory", [False, True])
def test_p_event_9_asyncio(path: Path, in_memory: bool) -> None:
    async def main() -> None:
        async with AsyncProcessRegistry.open(None if in_memory else path) as registry:
            await registry.transact(lambda tx: tx.register_process(registration()))
            assert await registry.wait_event_after("p", "tick", timeout_ms=10) is None
            waits = [asyncio.create_task(registry.wait_event_after("p", "tick")) for _ in range(20)]
            ends = [asyncio.create_task(registry.await_process("p")) for _ in range(20)]
            while len(waiters_of(registry)) < 40:
                await asyncio.sleep(0.001)
            cancelled = waits.pop()
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            assert len(waiters_of(registry)) == 39
            appended = await registry.append_event("p", "tick", 1)
            assert set(map(repr, await asyncio.gather(*waits))) == {repr(appended.event)}
            await registry.complete_process("p", Success(2))
            assert await asyncio.gather(*ends) == [Success(2)] * 20
            with pytest.raises(NotFoundError):
                await registry.await_process("q")
            for at in range(20):  # cancelled at any moment, nothing stays subscribed
                task = asyncio.create_task(registry.wait_event_after("p", "tick", 5))
                await asyncio.sleep(at / 10_000)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert waiters_of(registry) == []

    asyncio.run(main())


def test_p_event_9_closing_an_asyncio_registry_ends_the_wait(path: Path) -> None:
    async def main() -> None:
        registry = await AsyncProcessRegistry.open(path)
        await registry.register_process(registration())
        task = asyncio.create_task(registry.await_process("p"))
        while not waiters_of(registry):
            await asyncio.sleep(0.001)
        await registry.aclose()
        with pytest.raises(StoreClosedError):
            await asyncio.wait_for(task, 10)

    asyncio.run(main())


@pytest.mark.posix("forks")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_p_event_9_a_fork_while_somebody_waits(path: Path) -> None:
    """The child has a watch of its own; the parent's waiters go on."""
    with ProcessRegistry.open(path) as registry:
        register(registry)
        waiter = Waiter(lambda: registry.await_process("p", timeout_ms=LONG_MS))
        waiters_on(registry, 1)
        time.sleep(0.3)  # it has looked, and rests: forked inside its snapshot, a child is refused
        child = os.fork()
        if child == 0:
            try:
                assert registry.wait_event_after("p", "tick", timeout_ms=30) is None
                registry.complete_process("p", Success("child"))
                os._exit(0)
            except BaseException:  # noqa: BLE001 # reason: the status tells
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        assert waiter.finished() == Success("child")
