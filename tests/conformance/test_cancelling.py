"""Calls of an event loop that are cancelled, functions that are asynchronous, and closing."""

from __future__ import annotations

import asyncio
import functools
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from lash_store import AsyncSessionStore, NewWork, SessionLease, SessionStore
from lash_store._kernel.observing import Event, observed_by
from lash_store.errors import CoroutineError, InvalidRecordError, StoreClosedError
from lash_store.session.tx import SessionTx
from lash_store.testing import run_as_group
from tests.support.databases import all_rows, apart, database_of
from tests.support.timing import awaited_within

# The lock is another process's.


@contextmanager
def locked_by_a_store(path: Path) -> Iterator[None]:
    other = apart(SessionStore.open, path, session_id="other")
    with other, other.begin():
        yield


@contextmanager
def locked_by_sqlite(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


WRITES: dict[str, Callable[[AsyncSessionStore], Any]] = {
    "claim": lambda store: store.claim_lease(owner_id="late", ttl_ms=60_000),
    "enqueue": lambda store: store.enqueue_work(NewWork(["late"])),
    "transact": lambda store: store.transact(lambda tx: tx.put_blob(b"late")),
    "a repeatable transact": lambda store: store.transact(
        lambda tx: tx.put_blob(b"late"), repeatable=True
    ),
}


@pytest.mark.parametrize("locked", [locked_by_a_store, locked_by_sqlite])
@pytest.mark.parametrize("is_open", [True, False], ids=["open", "lazily"])
@pytest.mark.parametrize("call", WRITES.values(), ids=WRITES)
def test_k_tx_11_a_timeout_ends_a_wait_for_another_process_and_nothing_is_taken_after_it(
    path: Path, call: Callable[[AsyncSessionStore], Any], locked: Any, is_open: bool
) -> None:
    SessionStore.open(path, session_id="s").close()

    async def main() -> None:
        store = AsyncSessionStore.open(path, session_id="s")
        if is_open:
            await store

        async def one() -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await call(store)

        async def many() -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await asyncio.gather(*(call(store) for _ in range(50)))

        with locked(path):
            assert await awaited_within(0.6, one)
            assert await awaited_within(0.6, many)
        assert await store.current_lease() is None
        assert await store.list_work() == []
        lease = await store.claim_lease(owner_id="ann", ttl_ms=60_000)
        assert isinstance(lease, SessionLease)
        assert lease.fence.fencing_token == 1
        await store.aclose()

    asyncio.run(main())
    assert all_rows(path)["blobs"] == []


def test_a_cancelled_wait_leaves_the_queue_of_processes(path: Path) -> None:
    """Whoever gave up is not the head of the queue, or the others would wait for it."""

    async def main() -> None:
        async with AsyncSessionStore.open(path, session_id="s") as store:
            other = apart(SessionStore.open, path, session_id="other")
            with other.begin(), pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await store.put_blob(b"x")
            queue = database_of(await store._opened()).connections.queue
            assert queue is not None
            for _ in range(200):
                if queue._queued_s is None:
                    break
                await asyncio.sleep(0.01)
            assert queue._queued_s is None
            # Once: a place that was left held is slow for the first who comes, and for nobody after.
            started_s = time.monotonic()
            await asyncio.to_thread(other.put_blob, b"y")
            assert time.monotonic() - started_s < 0.2
            other.close()

    asyncio.run(main())


def test_cancelling_a_wait_for_this_processs_own_block(path: Path) -> None:
    async def main() -> None:
        store = SessionStore.open(path, session_id="s")
        beside = await AsyncSessionStore.open(store, session_id="s")
        entered, leave = threading.Event(), threading.Event()

        def block() -> None:
            with store.begin():
                entered.set()
                leave.wait(20)

        thread = threading.Thread(target=block)
        thread.start()
        entered.wait()
        try:
            for call in WRITES.values():

                async def one(call: Callable[[AsyncSessionStore], Any] = call) -> None:
                    with pytest.raises(TimeoutError):
                        async with asyncio.timeout(0.1):
                            await call(beside)

                assert await awaited_within(0.3, one)
        finally:
            leave.set()
            thread.join()
        assert store.list_work() == []
        assert store.current_lease() is None
        await beside.aclose()
        store.close()

    asyncio.run(main())


class Slow:
    """Makes one kind of statement of one operation wait until the test lets it go on."""

    def __init__(self, kind: str, operation: str) -> None:
        self.kind, self.operation = kind, operation
        self.entered, self.leave = threading.Event(), threading.Event()

    def before(self, event: Event) -> None:
        if (event.kind, event.operation) == (self.kind, self.operation):
            self.entered.set()
            self.leave.wait(20)

    def after(self, event: Event) -> None:
        pass


@pytest.mark.parametrize("kind", ["statement", "commit"])
def test_k_tx_11_a_call_that_was_begun_keeps_its_outcome(path: Path, kind: str) -> None:
    async def main() -> None:
        async with AsyncSessionStore.open(path, session_id="s") as store:
            slow = Slow(kind, "claim_lease")
            with observed_by(slow):
                claiming = asyncio.create_task(store.claim_lease(owner_id="ann", ttl_ms=60_000))
                while not slow.entered.is_set():
                    await asyncio.sleep(0.001)
                for _ in range(3):
                    claiming.cancel()
                    await asyncio.sleep(0.01)
                was_done = claiming.done()
                slow.leave.set()
                with pytest.raises(asyncio.CancelledError):
                    await claiming
            assert not was_done
            assert isinstance(await store.current_lease(), SessionLease)  # at once: it is decided

    asyncio.run(main())


def test_cancelling_reads(path: Path) -> None:
    async def main() -> None:
        async with AsyncSessionStore.open(path, session_id="s") as store:
            slow = Slow("statement", "current_lease")
            with observed_by(slow):
                running = asyncio.create_task(store.current_lease())
                while not slow.entered.is_set():
                    await asyncio.sleep(0.001)
                waiting = [asyncio.create_task(store.list_work()) for _ in range(20)]
                await asyncio.sleep(0)
                for task in waiting[::2]:
                    task.cancel()
                running.cancel()
                others = await asyncio.wait_for(
                    asyncio.gather(*waiting, return_exceptions=True), 10
                )
                assert [type(each) for each in others[::2]] == [asyncio.CancelledError] * 10
                assert others[1::2] == [[]] * 10  # past the one that takes long
                slow.leave.set()
                with pytest.raises(asyncio.CancelledError):
                    await asyncio.wait_for(running, 10)
            assert await store.current_lease() is None

    asyncio.run(main())


def test_a_snapshot_that_can_not_be_ended_keeps_no_other_read_from_being_done(path: Path) -> None:
    class Broken:
        left = 6

        def before(self, event: Event) -> None:
            if event.kind == "rollback" and self.left:
                self.left -= 1
                raise OSError("no end")

        def after(self, event: Event) -> None:
            pass

    async def main() -> None:
        async with AsyncSessionStore.open(path, session_id="s") as store:
            with observed_by(Broken()):
                for _ in range(12):
                    await asyncio.wait_for(store.current_lease(), 5)
            await asyncio.wait_for(store.current_lease(), 5)

    asyncio.run(main())


@pytest.mark.canonical("one file, in which one store sees what another wrote of its session")
def test_cancelled_at_random_nothing_is_lost_and_nothing_hangs(  # noqa: C901 # reason: five ways to call, one account
    path: Path,
) -> None:
    """What is acknowledged is there; what is cancelled is there wholly, or not at all."""
    chance = random.Random(7)
    acknowledged: set[str] = set()
    cancelled: set[str] = set()

    async def main() -> None:  # noqa: C901 # reason: the same
        store = await AsyncSessionStore.open(path, session_id="s")
        other = await AsyncSessionStore.open(path, session_id="t")

        def both(name: str) -> Callable[[SessionTx], None]:
            def work(tx: SessionTx) -> None:
                tx.enqueue_work(NewWork([name, "first"]))
                tx.enqueue_work(NewWork([name, "second"]))

            return work

        async def one(number: int) -> None:
            name = f"n{number}"
            target = chance.choice([store, other])
            how = number % 5
            try:
                if how == 0:
                    await target.transact(both(name))
                elif how == 1:
                    await target.transact(both(name), repeatable=True)
                elif how == 2:
                    await target.enqueue_all_work(
                        [NewWork([name, "first"]), NewWork([name, "second"])]
                    )
                elif how == 3:
                    await target.current_lease()
                    return
                else:
                    await target.read(lambda tx: tx.current_lease())
                    return
            except asyncio.CancelledError:
                cancelled.add(name)
                raise
            acknowledged.add(name)

        for start in range(0, 3_000, 250):
            tasks = [asyncio.create_task(one(start + number)) for number in range(250)]
            for _ in range(20):
                await asyncio.sleep(chance.random() * 0.004)
                for task in chance.sample(tasks, 10):
                    task.cancel()
            done, pending = await asyncio.wait(tasks, timeout=60)
            assert not pending
            errors = [task.exception() for task in done if not task.cancelled()]
            assert set(errors) == {None}
        await store.aclose()
        await other.aclose()

    asyncio.run(main())
    with SessionStore.open(path, session_id="s") as store:
        works = [*store.list_work(), *store.list_work(session_id="t")]
    found: dict[str, int] = {}
    for batch in works:
        name = str(batch.items[0].payload)
        found[name] = found.get(name, 0) + 1
    assert set(found.values()) == {2}
    assert acknowledged <= set(found)
    assert set(found) <= acknowledged | cancelled
    assert len(cancelled) > 100


def test_cancelling_while_it_is_opened_lazily(path: Path) -> None:
    async def main() -> None:
        chance = random.Random(3)
        for _ in range(60):
            store = AsyncSessionStore.open(path, session_id="s")
            tasks = [asyncio.create_task(store.current_lease()) for _ in range(4)]
            await asyncio.sleep(chance.random() * 0.003)
            for task in tasks[:3]:
                task.cancel()
            await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
            assert tasks[3].result() is None
            await store.aclose()
            with pytest.raises(StoreClosedError):
                await store.current_lease()
        for _ in range(20):
            entering = asyncio.create_task(
                AsyncSessionStore.open(path, session_id="s").__aenter__()
            )
            await asyncio.sleep(chance.random() * 0.002)
            entering.cancel()
            with suppress(asyncio.CancelledError):
                await (await entering).aclose()

    asyncio.run(main())
    until = time.monotonic() + 20
    while path.with_name(f"{path.name}-wal").exists():  # what was left to open is closed after that
        assert time.monotonic() < until
        time.sleep(0.01)


# Functions that are asynchronous.


async def coroutine_function(tx: SessionTx) -> None:
    raise AssertionError("it runs")


class CallableObject:
    async def __call__(self, tx: SessionTx) -> None:
        raise AssertionError("it runs")


def gives_an_awaitable(tx: SessionTx) -> Any:
    if tx.operation is None:
        with suppress(Exception):  # a snapshot refuses it
            tx.put_blob(b"undone")
    return coroutine_function(tx)


class Awaitable:
    def __await__(self) -> Iterator[None]:
        raise AssertionError("it is awaited")


def gives_a_foreign_awaitable(tx: SessionTx) -> Any:
    with suppress(Exception):
        tx.put_blob(b"undone")
    return Awaitable()


async def asynchronous_generator(tx: SessionTx) -> Any:
    yield tx


ASYNCHRONOUS: dict[str, Any] = {
    "a coroutine function": coroutine_function,
    "a partial of one": functools.partial(coroutine_function),
    "a callable object": CallableObject(),
    "a method": CallableObject().__call__,
    "a lambda": lambda tx: coroutine_function(tx),  # noqa: PLW0108 # reason: that is the case
    "a function that gives a coroutine": gives_an_awaitable,
    "a function that gives an awaitable": gives_a_foreign_awaitable,
    "an asynchronous generator": asynchronous_generator,
}

TAKERS: dict[str, Callable[[SessionStore, Any], Any]] = {
    "transact": lambda store, work: store.transact(work),
    "a repeatable transact": lambda store, work: store.transact(work, repeatable=True),
    "wait_until": lambda store, work: store.wait_until(work, timeout_ms=5_000),
}

ASYNC_TAKERS: dict[str, Callable[[AsyncSessionStore, Any], Any]] = {
    "transact": lambda store, work: store.transact(work),
    "a repeatable transact": lambda store, work: store.transact(work, repeatable=True),
    "read": lambda store, work: store.read(work),
    "wait_until": lambda store, work: store.wait_until(work, timeout_ms=5_000),
}


@pytest.mark.parametrize("in_memory", [False, True], ids=["file", "memory"])
@pytest.mark.parametrize("work", ASYNCHRONOUS.values(), ids=ASYNCHRONOUS)
@pytest.mark.parametrize("take", TAKERS.values(), ids=TAKERS)
def test_k_tx_11_an_asynchronous_function_is_refused_and_undone(
    path: Path, take: Callable[[SessionStore, Any], Any], work: Any, in_memory: bool
) -> None:
    with SessionStore.open(None if in_memory else path, session_id="s") as store:
        with pytest.raises(CoroutineError) as refusal:
            take(store, work)
        assert isinstance(refusal.value, TypeError)
        with store.read() as tx:
            assert tx.connection.exec_driver_sql("SELECT count(*) FROM blobs").scalar() == 0
        store.put_blob(b"x")


def generator(tx: SessionTx) -> Iterator[None]:
    tx.put_blob(b"never")
    yield


@pytest.mark.parametrize("take", TAKERS.values(), ids=TAKERS)
def test_k_tx_11_a_generator_function_is_refused(
    store: SessionStore, path: Path, take: Callable[[SessionStore, Any], Any]
) -> None:
    """It would run when the transaction is over, if ever."""
    before = all_rows(path)
    with pytest.raises(InvalidRecordError, match="a function that runs as it is called"):
        take(store, generator)
    assert all_rows(path) == before


@pytest.mark.parametrize("in_memory", [False, True], ids=["file", "memory"])
@pytest.mark.parametrize("work", ASYNCHRONOUS.values(), ids=ASYNCHRONOUS)
@pytest.mark.parametrize("take", ASYNC_TAKERS.values(), ids=ASYNC_TAKERS)
def test_an_asynchronous_function_is_refused_and_undone_by_asyncio(
    path: Path, take: Callable[[AsyncSessionStore, Any], Any], work: Any, in_memory: bool
) -> None:
    async def main() -> None:
        where = None if in_memory else path
        async with AsyncSessionStore.open(where, session_id="s") as store:
            with pytest.raises(CoroutineError):
                await asyncio.wait_for(take(store, work), 10)
            count = await store.read(
                lambda tx: tx.connection.exec_driver_sql("SELECT count(*) FROM blobs").scalar()
            )
            assert count == 0
            await store.put_blob(b"x")

    asyncio.run(main())


def test_an_asynchronous_function_in_a_group_costs_the_others_nothing(store: SessionStore) -> None:
    lease, refused, batch = run_as_group(
        functools.partial(store.claim_lease, owner_id="ann", ttl_ms=60_000),
        functools.partial(store.transact, gives_an_awaitable),
        functools.partial(store.enqueue_work, NewWork([1])),
    )
    assert isinstance(refused, CoroutineError)
    assert store.current_lease() == lease
    assert store.list_work() == [batch]
    with store.read() as tx:
        assert tx.connection.exec_driver_sql("SELECT count(*) FROM blobs").scalar() == 0


# Closing.


def test_closing_needs_nothing_of_the_loops_own_threads(path: Path) -> None:
    async def main() -> None:
        leave = threading.Event()
        loop = asyncio.get_running_loop()
        executor = ThreadPoolExecutor(4)
        loop.set_default_executor(executor)
        jobs = [loop.run_in_executor(None, leave.wait, 30) for _ in range(64)]
        try:
            store = AsyncSessionStore.open(path, session_id="s")
            async with asyncio.timeout(5):
                await store.put_blob(b"x")
                await store.read(lambda tx: tx.current_lease())
                await store.wait_until(lambda _: 1)
                await store.aclose()
        finally:
            leave.set()
            await asyncio.gather(*jobs)

    asyncio.run(main())
    assert not path.with_name(f"{path.name}-wal").exists()


_AT_EXIT = """
import asyncio, atexit, sys
from lash_store import AsyncSessionStore

store = AsyncSessionStore.open(sys.argv[1], session_id="s")

def leave():
    {use}
    {close}
    print("closed")

atexit.register(leave)
asyncio.run(store.put_blob(b"x"))
"""


@pytest.mark.parametrize(
    "use", ["pass", "asyncio.run(store.put_blob(b'y'))"], ids=["", "after use"]
)
@pytest.mark.parametrize("close", ["asyncio.run(store.aclose())", "store.close()"])
def test_closing_works_when_a_program_ends(path: Path, root: Path, close: str, use: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _AT_EXIT.format(close=close, use=use), str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=root,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("closed\n", "", 0)
    assert not path.with_name(f"{path.name}-wal").exists()
    assert len(all_rows(path)["blobs"]) == 1 + (use != "pass")


def test_an_asyncio_store_is_closed_without_a_loop(path: Path) -> None:
    store = AsyncSessionStore.open(path, session_id="s")
    asyncio.run(store.put_blob(b"x"))
    store.close()
    store.close()
    assert not path.with_name(f"{path.name}-wal").exists()
    with pytest.raises(StoreClosedError):
        asyncio.run(store.current_lease())
    unopened = AsyncSessionStore.open(path, session_id="s")
    unopened.close()
    with pytest.raises(StoreClosedError):
        asyncio.run(unopened.current_lease())
    asyncio.run(unopened.aclose())


def test_cancelling_aclose_closes_all_the_same(path: Path) -> None:
    async def main() -> None:
        store = await AsyncSessionStore.open(path, session_id="s")
        entered, leave = threading.Event(), threading.Event()

        def work(_: SessionTx) -> None:
            entered.set()
            leave.wait(20)

        running = asyncio.create_task(store.transact(work))
        while not entered.is_set():
            await asyncio.sleep(0.001)
        closing_it = asyncio.create_task(store.aclose())
        await asyncio.sleep(0.01)
        closing_it.cancel()
        await asyncio.sleep(0.01)
        leave.set()
        await running
        with pytest.raises(asyncio.CancelledError):
            await closing_it
        with pytest.raises(StoreClosedError):
            await store.current_lease()

    asyncio.run(main())
    assert not path.with_name(f"{path.name}-wal").exists()
