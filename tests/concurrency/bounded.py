"""What a process takes of its machine, in a process of its own: ``python -m tests.concurrency.bounded``.

Prints a report as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from lash_store import AsyncSessionStore, NewWork, SessionStore
from lash_store._kernel.observing import Event, observed_by
from lash_store.session.tx import SessionTx

LOCKED = 16
LOCKED_S = 3.0


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def resident_mib() -> float:
    with open("/proc/self/status") as lines:
        line = next(each for each in lines if each.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


class Most:
    """The most that was seen of each."""

    def __init__(self) -> None:
        self.before_mib = resident_mib()
        self.threads = self.descriptors = 0
        self.grown_mib = 0.0

    def look(self) -> None:
        self.threads = max(self.threads, threads())
        self.descriptors = max(self.descriptors, descriptors())
        self.grown_mib = max(self.grown_mib, resident_mib() - self.before_mib)


def warm_up(folder: Path) -> None:
    """Compile and import what the first use of a store does."""
    with SessionStore.open(folder / "warm.db", session_id="s") as store:
        store.enqueue_work(NewWork([0]))
        store.list_work()


def many_sessions(folder: Path, sessions: int) -> dict[str, Any]:
    """Sync stores, each of a file of its own and kept open, used in turn."""
    warm_up(folder)
    most = Most()
    stores = []
    for number in range(sessions):
        store = SessionStore.open(folder / f"{number}.db", session_id=f"s{number}")
        store.enqueue_work(NewWork([number, 0]))
        stores.append(store)
        most.look()
    for turn in (1, 2):
        for number, store in enumerate(stores):
            store.enqueue_work(NewWork([number, turn]))
            assert len(store.list_work()) == turn + 1
            most.look()
    complete = sum(len(store.list_work()) == 3 for store in stores)
    for store in stores:
        store.close()
    return {**vars(most), "complete": complete, "left": descriptors()}


def many_sessions_asyncio(folder: Path, sessions: int) -> dict[str, Any]:
    """Asyncio stores, each of a file of its own and kept open, 16 used at once."""

    async def main() -> dict[str, Any]:
        async with AsyncSessionStore.open(folder / "warm.db", session_id="s") as store:
            await store.enqueue_work(NewWork([0]))
            await store.list_work()
        most = Most()
        stores = [
            AsyncSessionStore.open(folder / f"{number}.db", session_id=f"s{number}")
            for number in range(sessions)
        ]

        async def use(number: int, turn: int) -> None:
            await stores[number].enqueue_work(NewWork([number, turn]))
            await stores[number].list_work()

        for turn in range(3):
            for start in range(0, sessions, 16):
                numbers = range(start, min(start + 16, sessions))
                await asyncio.gather(*(use(number, turn) for number in numbers))
                most.look()
        complete = 0
        for store in stores:
            complete += len(await store.list_work()) == 3
        for store in stores:
            await store.aclose()
        return {**vars(most), "complete": complete, "left": descriptors()}

    return asyncio.run(main())


def lock_all(stack: ExitStack, folder: Path) -> Callable[[], None]:
    """Lock sixteen files as others would; return what lets go of them."""
    others = []
    for number in range(LOCKED):
        path = folder / f"{number}.db"
        SessionStore.open(path, session_id="s").close()
        other = stack.enter_context(
            closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False))
        )
        other.execute("BEGIN IMMEDIATE")
        others.append(other)

    def unlock() -> None:
        for other in others:
            other.execute("ROLLBACK")

    return unlock


def locked_asyncio(folder: Path, waiting: int) -> dict[str, Any]:
    """Calls of one loop wait for sixteen files, `waiting` on each; a seventeenth is free."""

    async def main() -> dict[str, Any]:
        with ExitStack() as stack:
            unlock = lock_all(stack, folder)
            stores = [
                await AsyncSessionStore.open(folder / f"{number}.db", session_id="s")
                for number in range(LOCKED)
            ]
            free = await AsyncSessionStore.open(folder / "free.db", session_id="s")
            calls: list[asyncio.Task[Any]] = []
            for number, store in enumerate(stores):
                for each in range(waiting):
                    work: Awaitable[Any] = (
                        store.transact(lambda tx: tx.enqueue_work(NewWork([1])))
                        if (number + each) % 2
                        else store.enqueue_work(NewWork([1]))
                    )
                    calls.append(asyncio.ensure_future(work))
            uses: list[Callable[[], Awaitable[Any]]] = [
                lambda: free.enqueue_work(NewWork([1])),
                lambda: free.transact(lambda tx: tx.enqueue_work(NewWork([1]))),
                free.list_work,
                lambda: free.read(lambda tx: tx.list_work()),
            ]
            slowest_s, count = 0.0, 0
            until_s = time.monotonic() + LOCKED_S
            while time.monotonic() < until_s:
                started_s = time.monotonic()
                await uses[count % len(uses)]()
                slowest_s = max(slowest_s, time.monotonic() - started_s)
                count += 1
            waited = sum(not call.done() for call in calls)
            most_threads = threads()
            unlock()
            await asyncio.wait_for(asyncio.gather(*calls), 30)
            for store in (*stores, free):
                await store.aclose()
            return {
                "slowest_s": slowest_s,
                "count": count,
                "waited": waited,
                "threads": most_threads,
            }

    return asyncio.run(main())


def locked_threads(folder: Path, waiting: int) -> dict[str, Any]:
    """The same with threads, `waiting` for each file."""
    with ExitStack() as stack:
        unlock = lock_all(stack, folder)
        stores = [SessionStore.open(folder / f"{n}.db", session_id="s") for n in range(LOCKED)]
        free = SessionStore.open(folder / "free.db", session_id="s")
        callers = [
            threading.Thread(target=store.enqueue_work, args=(NewWork([1]),))
            for store in stores
            for _ in range(waiting)
        ]
        for thread in callers:
            thread.start()
        slowest_s, count = 0.0, 0
        until_s = time.monotonic() + LOCKED_S
        while time.monotonic() < until_s:
            started_s = time.monotonic()
            free.enqueue_work(NewWork([1]))
            free.current_lease()
            slowest_s = max(slowest_s, time.monotonic() - started_s)
            count += 1
        waited = sum(thread.is_alive() for thread in callers)
        unlock()
        for thread in callers:
            thread.join(30)
        done = sum(len(store.list_work()) for store in stores)
        for store in (*stores, free):
            store.close()
        return {"slowest_s": slowest_s, "count": count, "waited": waited, "done": done}


class SlowRead:
    """Makes one one-call read wait until the test is over."""

    def __init__(self) -> None:
        self.entered, self.leave = threading.Event(), threading.Event()

    def before(self, event: Event) -> None:
        if event.kind == "statement" and event.operation == "current_lease":
            self.entered.set()
            self.leave.wait(20)

    def after(self, event: Event) -> None:
        pass


def long_reads(folder: Path, reads: int) -> dict[str, Any]:
    """A consumer's long read, and then a one-call read that takes long, beside other handles'."""

    async def main() -> dict[str, Any]:
        one = await AsyncSessionStore.open(folder / "a.db", session_id="s")
        same = await AsyncSessionStore.open(folder / "a.db", session_id="t")
        other = await AsyncSessionStore.open(folder / "b.db", session_id="s")
        sync = SessionStore.open(folder / "a.db", session_id="s")
        uses: list[Callable[[], Awaitable[Any]]] = [
            one.list_work,
            same.list_work,
            other.list_work,
            lambda: same.read(lambda tx: tx.list_work()),
            lambda: asyncio.to_thread(sync.list_work),
        ]

        async def slowest_s() -> float:
            slowest_s = 0.0
            for count in range(reads):
                started_s = time.monotonic()
                await asyncio.wait_for(uses[count % len(uses)](), 20)
                slowest_s = max(slowest_s, time.monotonic() - started_s)
            return slowest_s

        entered, leave = threading.Event(), threading.Event()

        def sleep(tx: SessionTx) -> None:
            tx.list_work()
            entered.set()
            leave.wait(20)

        reading = asyncio.create_task(one.read(sleep))
        await asyncio.to_thread(entered.wait)
        consumers_s = await slowest_s()
        still = not reading.done()
        leave.set()
        await reading
        slow = SlowRead()
        with observed_by(slow):
            reading_lease = asyncio.create_task(one.current_lease())
            while not slow.entered.is_set():
                await asyncio.sleep(0.001)
            one_calls_s = await slowest_s()
            still = still and not reading_lease.done()
            slow.leave.set()
            await reading_lease
        sync.close()
        for store in (one, same, other):
            await store.aclose()
        return {"consumers_s": consumers_s, "one_calls_s": one_calls_s, "still": still}

    return asyncio.run(main())


CASES = {
    each.__name__: each
    for each in (many_sessions, many_sessions_asyncio, locked_asyncio, locked_threads, long_reads)
}

if __name__ == "__main__":
    sys.stdout.write(json.dumps(CASES[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))))
