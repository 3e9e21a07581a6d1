"""Histories: what can be explained passes, what can't is shown with what overlapped it."""

from __future__ import annotations

import asyncio
import enum
import itertools
import os
import random
import signal
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from lash_store import AsyncSessionStore, Lease, SessionFence, SessionStore
from lash_store.errors import InvalidRecordError, LeaseLostError
from lash_store.testing import (
    History,
    HistoryError,
    LeaseState,
    Operation,
    Raised,
    check_history,
    lease_model,
    read_history,
)
from tests.support.layouts import on_server
from tests.support.processes import Says, workers


def register(state: int, operation: Operation) -> Iterable[int]:
    """A register: the simplest thing that can be raced for."""
    if operation.what == "write":
        if operation.end_ns is None:
            yield state
        yield operation.arguments[0]
    elif operation.result == state or operation.end_ns is None:
        yield state


def op(who: str, what: str, begin: int, end: int | None, result: Any, *arguments: Any) -> Operation:
    return Operation(who, what, arguments, result, begin, end)


def test_what_overlaps_may_have_happened_in_either_order() -> None:
    write = op("a", "write", 1, 10, None, 5)
    for seen in (0, 5):
        assert check_history([write, op("b", "read", 2, 3, seen)], register, 0) == 2
    assert check_history([write, op("b", "read", 11, 12, 5)], register, 0) == 2


def test_what_came_after_has_to_see_it() -> None:
    history = [op("a", "write", 1, 10, None, 5), op("b", "read", 11, 12, 0)]
    with pytest.raises(HistoryError) as found:
        check_history(history, register, 0)
    assert found.value.operation == history[1]
    assert "read() -> 0   <- this one" in str(found.value)
    assert "write(5) -> None" in str(found.value)


def test_what_has_no_answer_may_have_happened_or_not() -> None:
    for seen in (0, 5):
        history = [op("a", "write", 1, None, None, 5), op("b", "read", 7, 8, seen)]
        check_history([*history, op("b", "read", 9, 10, 5)], register, 0)
    history = [op("a", "write", 1, None, None, 5), op("b", "read", 7, 8, 5)]
    with pytest.raises(HistoryError):  # and once it has, it has
        check_history([*history, op("b", "read", 9, 10, 0)], register, 0)


def by_every_order(operations: list[Operation]) -> bool:
    """The same question, answered by trying all orders: so slow that it can't be wrong."""
    for order in itertools.permutations(operations):
        in_time = all(
            not (later.end_ns is not None and later.end_ns < earlier.begin_ns)
            for earlier, later in itertools.combinations(order, 2)
        )
        states = {0}
        for each in order:
            states = {after for state in states for after in register(state, each)}
        if in_time and states:
            return True
    return False


@settings(max_examples=300, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 5))
def test_it_says_what_trying_all_orders_says(chance: random.Random, count: int) -> None:
    operations = []
    times = chance.sample(range(100), 2 * count)
    for at in range(count):
        begin, end = sorted(times[2 * at : 2 * at + 2])
        if chance.random() < 0.25:
            operations.append(op("k", "write", begin, None, None, chance.randrange(3)))
        elif chance.random() < 0.5:
            operations.append(op("w", "write", begin, end, None, chance.randrange(3)))
        else:
            operations.append(op("r", "read", begin, end, chance.randrange(3)))
    try:
        check_history(operations, register, 0)
    except HistoryError:
        assert not by_every_order(operations)
    else:
        assert by_every_order(operations)


class Worker:
    """A lease of a store, as a history has it."""

    def __init__(self, store: SessionStore, name: str) -> None:
        self.store, self.name = store, name
        self.fence: Any = None

    def acquire(self, ttl_ms: int) -> int | None:
        found = self.store.claim_lease(owner_id=self.name, ttl_ms=ttl_ms)
        if not isinstance(found, Lease):
            return None
        self.fence = found.fence
        return found.fencing_token

    def renew(self, ttl_ms: int) -> bool:
        try:
            self.store.renew_lease(self.fence, ttl_ms=ttl_ms)
        except LeaseLostError:
            return False
        return True

    def release(self) -> bool:
        return self.store.release_lease(self.fence)

    def write(self, value: int) -> bool:
        try:
            with self.store.begin() as tx:
                tx.require(self.fence)
        except LeaseLostError:
            return False
        return True


def work(history: History, worker: Worker, chance: random.Random, until_s: float) -> None:
    """Acquire and use a lease, now and then beyond its end; never while it is one's own."""
    name, numbers = worker.name, itertools.count()
    while time.monotonic() < until_s:
        number = next(numbers)
        if history.call(name, "acquire", worker.acquire, chance.choice((2, 5, 20))) is None:
            time.sleep(chance.random() * 0.002)
            continue
        for _ in range(chance.randrange(3)):
            history.call(name, "write", worker.write, number)
            if chance.random() < 0.2:
                time.sleep(chance.random() * 0.01)
        if chance.random() < 0.3:
            history.call(name, "renew", worker.renew, 5)
        if chance.random() < 0.2:
            worker.name = f"{name}-{number}"  # it comes back under another name
        history.call(name, "release", worker.release)
        worker.name = name


def test_threads_on_one_lease(path: Path) -> None:
    history, until_s = History(), time.monotonic() + 1.5
    with SessionStore.open(path, session_id="s") as store:
        threads = [
            threading.Thread(
                target=work, args=(history, Worker(store, f"w{at}"), random.Random(at), until_s)
            )
            for at in range(4)
        ]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    assert (
        check_history(history.operations, lease_model, LeaseState())
        == len(history.operations)
        > 200
    )


class AsyncWorker:
    """The same of an asyncio store."""

    def __init__(self, store: AsyncSessionStore, name: str) -> None:
        self.store, self.name = store, name
        self.fence: Any = None

    async def acquire(self, ttl_ms: int) -> int | None:
        found = await self.store.claim_lease(owner_id=self.name, ttl_ms=ttl_ms)
        if not isinstance(found, Lease):
            return None
        self.fence = found.fence
        return found.fencing_token

    async def renew(self, ttl_ms: int) -> bool:
        try:
            await self.store.renew_lease(self.fence, ttl_ms=ttl_ms)
        except LeaseLostError:
            return False
        return True

    async def release(self) -> bool:
        return await self.store.release_lease(self.fence)


def test_tasks_on_one_lease(path: Path) -> None:
    """Eight tasks; one call of each is cancelled, and what became of it nobody knows."""
    history = History()
    # On a server each is cut off in the midst of it: what may have become of eight is too much to try.
    cancelled = 2 if on_server() else 8

    async def task(store: AsyncSessionStore, seed: int, until_s: float) -> None:
        chance = random.Random(seed)
        for number in itertools.count():
            if time.monotonic() > until_s:
                return
            worker = AsyncWorker(store, f"w{seed}-{number}")  # a new one each time: it has no term
            acquire = history.call_async(
                worker.name, "acquire", worker.acquire, chance.choice((2, 5, 20))
            )
            if number == seed and seed < cancelled:
                with suppress(TimeoutError):
                    await asyncio.wait_for(acquire, 0.0005)
                continue
            if await acquire is None:
                await asyncio.sleep(chance.random() * 0.002)
                continue
            if chance.random() < 0.5:
                await history.call_async(worker.name, "renew", worker.renew, 5)
            await history.call_async(worker.name, "release", worker.release)

    async def run() -> None:
        until_s = time.monotonic() + 1.5
        async with await AsyncSessionStore.open(path, session_id="s") as store:
            await asyncio.gather(*(task(store, seed, until_s) for seed in range(8)))

    asyncio.run(run())
    assert check_history(history.operations, lease_model, LeaseState()) > 200


def work_in_a_process(say: Says, path: Path, log: Path, seed: int) -> None:
    session_id = log.name
    with SessionStore.open(path, session_id=session_id) as store:
        name = f"w{seed}-{os.getpid()}"
        history = History(log / name)
        say("works")
        work(history, Worker(store, name), random.Random(name), time.monotonic() + 60)


HISTORY_S = float(os.environ.get("LASH_STORE_HISTORY_S", "3"))
"""How long; ``nox -s histories`` takes ten minutes."""

ROUND_S = 2.5


@pytest.mark.posix("kills and stops")
def test_eight_processes_that_are_killed_and_stopped(
    path: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """In rounds, each on a session of its own: what is never answered has to be thought of for ever."""
    SessionStore.open(path, session_id="s").close()
    chance, checked, done_s = random.Random(HISTORY_S), 0, time.monotonic() + HISTORY_S
    for round_ in itertools.count():
        log = tmp_path / f"round-{round_}"
        log.mkdir()
        _one_round(path, log, chance)
        operations = read_history(*log.iterdir())
        checked += check_history(operations, lease_model, LeaseState())
        if time.monotonic() > done_s:
            break
    record_property("operations checked", checked)
    assert checked > 100


def _one_round(path: Path, log: Path, chance: random.Random) -> None:
    """Eight at work; one after another is killed, and another begins, or is stopped for a while."""
    with ExitStack() as stack:

        def start(seed: int) -> Any:
            (one,) = stack.enter_context(workers(1, work_in_a_process, path, log, seed))
            return one

        running = [start(seed) for seed in range(8)]
        for each in running:
            each.receive()
        until_s = time.monotonic() + ROUND_S
        while time.monotonic() < until_s:
            time.sleep(chance.random() * 0.3)
            at = chance.randrange(len(running))
            if chance.random() < 0.4:
                running[at].kill()
                running[at] = start(at)
                continue
            pid = running[at].process.pid
            os.kill(pid, signal.SIGSTOP)
            time.sleep(chance.random() * 0.1)  # longer than most terms
            os.kill(pid, signal.SIGCONT)


def select_then_update(path: Path, who: str) -> int | None:
    """A lease as it is often written: what was free when it was read is taken."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=10)) as connection:
        (owner,) = connection.execute("SELECT owner FROM lease").fetchone()
        time.sleep(0.0005)  # any program takes a moment
        if owner is not None:
            return None
        connection.execute("UPDATE lease SET owner = ?", (who,))
        return 0


def test_select_then_update_is_caught(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE lease (owner)")
        connection.execute("INSERT INTO lease VALUES (NULL)")
    history = History()

    def release(_: str) -> bool:
        with closing(sqlite3.connect(path, isolation_level=None, timeout=10)) as connection:
            connection.execute("UPDATE lease SET owner = NULL")
        return True

    def run(who: str) -> None:
        for _ in range(60):
            if history.call(who, "acquire", lambda _: select_then_update(path, who), 10**6) == 0:
                time.sleep(0.002)  # it is at work
                history.call(who, "release", lambda: release(who))

    threads = [threading.Thread(target=run, args=(f"w{at}",)) for at in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    with pytest.raises(HistoryError) as found:
        check_history(history.operations, lease_model, LeaseState())
    assert "acquire(1000000) -> 0" in str(found.value)


def raised(name: str) -> Callable[[int], Any]:
    def call(_: int) -> Any:
        if name == "busy":
            raise TimeoutError
        raise LeaseLostError(SessionFence("s", "ann", "t", 1), None, "expired")

    return call


@pytest.mark.parametrize(
    ("what", "error", "explained"),
    [
        ("renew", "lost", False),  # it was live
        ("write", "lost", False),
        ("renew", "busy", True),  # which says nothing
        ("acquire", "busy", True),
        ("release", "busy", True),
    ],
)
def test_what_has_raised(path: Path, what: str, error: str, explained: bool) -> None:
    history = History(path)
    assert history.call("ann", "acquire", lambda _: 1, 60_000) == 1
    with pytest.raises((LeaseLostError, TimeoutError)):
        history.call("ann", what, raised(error), 60_000)
    history.close()
    for operations in (history.operations, read_history(path)):
        assert isinstance(operations[1].result, Raised)
        if explained:
            assert check_history(operations, lease_model, LeaseState()) == 2
        else:
            with pytest.raises(HistoryError):
                check_history(operations, lease_model, LeaseState())


def test_a_holder_may_acquire_again_for_a_later_term_only() -> None:
    history = History()
    for number in (1, 2):
        history.call("ann", "acquire", lambda _, number=number: number, 60_000)
    assert check_history(history.operations, lease_model, LeaseState()) == 2
    history.call("ann", "acquire", lambda _: 2, 60_000)
    with pytest.raises(HistoryError):
        check_history(history.operations, lease_model, LeaseState())


def test_an_answer_that_is_no_json_is_the_callers_all_the_same(path: Path) -> None:
    history = History(path)
    given = history.call("ann", "acquire", LeaseState)
    history.close()
    assert given == LeaseState()
    (operation,) = read_history(path)
    assert operation.result == LeaseState()
    thing = object()
    history = History(path.with_name("again"))
    assert history.call("ann", "make", lambda: thing) is thing
    history.close()
    (operation,) = read_history(path.with_name("again"))
    assert operation.result == repr(thing)


def test_what_has_to_be_awaited_is_refused() -> None:
    history = History()
    with pytest.raises(InvalidRecordError, match="call_async"):
        history.call("ann", "sleep", asyncio.sleep, 0)


def test_a_history_has_a_file_of_its_own(path: Path) -> None:
    """Appended to another's, its numbers would hide what that had begun."""
    first = History(path)
    first.begin("ann", "write", 1)
    first.close()
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        History(path)
    assert path.read_bytes() == before
    assert [each.end_ns for each in read_history(path)] == [None]


def test_ten_thousand_operations_of_eight_clients() -> None:
    """Made up, sound, and with eight calls at a time: for how long it takes, see bench/README.md."""
    chance, operations, state = random.Random(1), [], 0
    for at in range(10_000):
        begin = at * 10 + chance.randrange(-35, 5)
        end = at * 10 + chance.randrange(5, 40)
        if chance.random() < 0.5:
            state = at
            operations.append(op(f"w{at % 8}", "write", begin, end, None, at))
        else:
            operations.append(op(f"w{at % 8}", "read", begin, end, state))
    assert check_history(operations, register, 0) == 10_000


def test_whatever_was_answered_is_written_and_given(tmp_path: Path) -> None:
    """What is no JSON by its keys, a cycle or its depth too: the call has happened."""
    cycle: list[Any] = []
    cycle.append(cycle)
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    answers = [{(1, 2): "x"}, cycle, deep, object(), 7]
    history = History(tmp_path / "history")
    for answer in answers:
        assert history.call("ann", "get", lambda: answer) is answer  # noqa: B023 # reason: it is called here
    history.call("ann", "put", lambda *_: None, cycle, {(b"k",): 1})
    history.close()
    found = read_history(tmp_path / "history")
    assert [operation.end_ns is not None for operation in found] == [True] * 6
    assert found[4].result == 7


class Answer(enum.IntEnum):
    FREE = 0


class Word(enum.StrEnum):
    FREE = "free"


@pytest.mark.parametrize(
    "answer",
    [Answer.FREE, Word.FREE, [LeaseState()], {"a": (Word.FREE, Answer.FREE)}, OrderedDict(a=1)],
)
def test_what_equals_a_plain_value_is_read_back_as_that(tmp_path: Path, answer: Any) -> None:
    history = History(tmp_path / "history")
    history.call("ann", "get", lambda _: answer, answer)
    history.close()
    (found,) = read_history(tmp_path / "history")
    assert found.result == answer
    assert found.arguments == (answer,)
    assert "<" not in repr(found.result)


@pytest.mark.parametrize(
    "answer",
    [
        (1, "x"),
        [1, ("x",)],
        {1: 2, (3,): {4}},
        b"\x00q",
        None,
        True,
        1.5,
        -(10**30),
        "it's",
        ("a", [()]),
        frozenset(),
    ],
)
def test_a_history_that_was_read_is_the_one_that_was_recorded(tmp_path: Path, answer: Any) -> None:
    """The same values, so the same verdict."""
    history = History(tmp_path / "history")
    history.call("ann", "get", lambda _: answer, answer)
    history.close()
    (found,) = read_history(tmp_path / "history")
    (recorded,) = history.operations
    if isinstance(answer, frozenset):  # which is no literal
        assert (found.result, found.arguments) == (repr(answer), (repr(answer),))
    else:
        assert found == recorded
        assert repr(found.result) == repr(answer)
