"""Many callers on one file: calls that go together, and stores that share a writer.

python -m bench.together [--json FILE]

Microseconds of wall time for each call, 64 asyncio tasks or 16 threads at once, each making one
call after another. It uses nothing that an earlier commit has not, so that ``bench.compare`` can
run it there. Rows named "raw" do the claim's SQL by hand, through aiosqlite and SQLAlchemy.
"""

from __future__ import annotations

import asyncio
import secrets
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import aiosqlite
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from bench.report import arguments, publish
from lash_store import (
    Append,
    AsyncEffectStore,
    AsyncProcessRegistry,
    AsyncSessionStore,
    External,
    Host,
    NewWork,
    Node,
    ProcessRegistration,
    Provenance,
    SessionStore,
    TurnCommit,
    TurnStamp,
)
from lash_store.process.records import EventType

TASKS = 64
EACH = 24
THREADS = 16
EACH_OF_A_THREAD = 120
TTL_MS = 600_000

Call = Callable[[int, int], Awaitable[object]]


def main() -> None:
    """Measure every case and publish what a call costs."""
    options = arguments(__doc__)
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        for synchronous in ("NORMAL", "FULL"):
            for name, make in CASES.items():
                us = asyncio.run(
                    tasks(make, Path(folder) / f"{name}-{synchronous}.db", synchronous)
                )
                figures.append(
                    {"case": f"{name}, {TASKS} tasks, {synchronous}", "us": round(us, 2)}
                )
        for name, run in OTHERS.items():
            us = run(Path(folder) / f"{name}.db")
            figures.append({"case": name, "us": round(us, 2)})
    publish(figures, options.json)


async def tasks(
    make: Callable[[AsyncExitStack, Path, str], Awaitable[Call]], path: Path, synchronous: str
) -> float:
    """Return what a call costs when many tasks make one after another, in microseconds."""
    async with AsyncExitStack() as opened:
        call = await make(opened, path, synchronous)

        async def task(number: int, each: int) -> None:
            for at in range(each):
                await call(number, at)

        await asyncio.gather(*(task(TASKS + at, 3) for at in range(TASKS)))
        started = time.perf_counter()
        await asyncio.gather(*(task(at, EACH) for at in range(TASKS)))
        return (time.perf_counter() - started) / (TASKS * EACH) * 1e6


async def session_at(opened: AsyncExitStack, path: Path, synchronous: Any) -> AsyncSessionStore:
    """Open a session store, and close it with the others."""
    store = AsyncSessionStore.open(path, session_id="s", synchronous=synchronous)
    return await opened.enter_async_context(store)


async def claim(opened: AsyncExitStack, path: Path, synchronous: str) -> Call:
    """Claims of leases of their own."""
    store = await session_at(opened, path, synchronous)
    return lambda task, _: store.claim_lease(owner_id="w", ttl_ms=TTL_MS, session_id=f"s{task}")


async def renew(opened: AsyncExitStack, path: Path, synchronous: str) -> Call:
    """Renewals of one lease."""
    store = await session_at(opened, path, synchronous)
    lease: Any = await store.claim_lease(owner_id="w", ttl_ms=TTL_MS)
    return lambda *_: store.renew_lease(lease.fence, ttl_ms=TTL_MS)


async def enqueue(opened: AsyncExitStack, path: Path, synchronous: str) -> Call:
    """Batches of one item."""
    store = await session_at(opened, path, synchronous)
    return lambda task, at: store.enqueue_work(NewWork([{"task": task, "at": at}]))


async def commit(opened: AsyncExitStack, path: Path, synchronous: str) -> Call:
    """Turns of one node, each with its receipt."""
    store = await session_at(opened, path, synchronous)
    lease: Any = await store.claim_lease(owner_id="w", ttl_ms=TTL_MS)

    def call(task: int, at: int) -> Awaitable[object]:
        key = f"{task}-{at}"
        node = Node(key, None, {"text": "a line of a conversation"})
        return store.commit_turn(
            TurnCommit(fence=lease.fence, graph=Append([node], leaf=key), stamp=TurnStamp(key, key))
        )

    return call


async def append(opened: AsyncExitStack, path: Path, synchronous: Any) -> Call:
    """Events of processes of their own."""
    store = AsyncProcessRegistry.open(path, synchronous=synchronous)
    registry = await opened.enter_async_context(store)
    for number in range(2 * TASKS):
        await registry.register_process(
            ProcessRegistration(
                f"p{number}",
                External({"title": "a job"}),
                Provenance(Host()),
                event_types=[EventType("tick")],
            )
        )
    return lambda task, at: registry.append_event(f"p{task}", "tick", {"at": at})


async def begin_and_finish(opened: AsyncExitStack, path: Path, synchronous: Any) -> Call:
    """Steps, begun and finished by two calls."""
    effects = await opened.enter_async_context(AsyncEffectStore.open(path, synchronous=synchronous))

    async def call(task: int, at: int) -> None:
        claim: Any = await effects.begin_effect(f"s{task}", f"k{at}", {"call": at})
        await effects.finish_effect(claim, {"ok": True})

    return call


async def run_step(opened: AsyncExitStack, path: Path, synchronous: Any) -> Call:
    """Whole steps, of a function that does nothing."""
    effects = await opened.enter_async_context(AsyncEffectStore.open(path, synchronous=synchronous))

    async def nothing() -> None:
        pass

    return lambda task, at: effects.run(f"s{task}", f"k{at}", {"call": at}, nothing)


CASES = {
    "claim": claim,
    "renew": renew,
    "append": append,
    "enqueue": enqueue,
    "commit": commit,
    "begin + finish": begin_and_finish,
    "run": run_step,
}


def threads(path: Path, *, stores: int, count: int) -> float:
    """Return what a claim costs with so many threads at once, on so many stores of the file."""
    with ExitStack() as opened:
        made = [
            opened.enter_context(SessionStore.open(path, session_id=f"s{at}"))
            for at in range(stores)
        ]

        each = max(EACH_OF_A_THREAD, 2_000 // count)

        def work(number: int) -> None:
            store = made[number % stores]
            for _ in range(each):
                store.claim_lease(owner_id="w", ttl_ms=TTL_MS, session_id=f"t{number}")

        work(0)
        running = [threading.Thread(target=work, args=(at,)) for at in range(count)]
        started = time.perf_counter()
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        return (time.perf_counter() - started) / (count * each) * 1e6


async def stores(path: Path, count: int) -> float:
    """Return what a claim costs with 64 tasks on so many asyncio stores of the file."""
    async with AsyncExitStack() as opened:
        made = [
            await opened.enter_async_context(AsyncSessionStore.open(path, session_id=f"s{at}"))
            for at in range(count)
        ]
        each = EACH if count == 1 else 4  # before there was one writer, this took minutes

        async def task(number: int) -> None:
            for _ in range(each):
                await made[number % count].claim_lease(
                    owner_id="w", ttl_ms=TTL_MS, session_id=f"t{number}"
                )

        await task(0)
        started = time.perf_counter()
        await asyncio.gather(*map(task, range(TASKS)))
        return (time.perf_counter() - started) / (TASKS * each) * 1e6


CLAIM = """\
INSERT INTO leases VALUES (:key, :owner, :token, 1, :now, :end) ON CONFLICT (key) DO UPDATE SET
owner = excluded.owner, token = excluded.token, number = number + 1, since = excluded.since,
until = excluded.until WHERE token IS NULL OR until <= :now OR owner = excluded.owner
RETURNING key, owner, token, number, since, until"""
TABLE = """\
CREATE TABLE IF NOT EXISTS leases (key TEXT PRIMARY KEY, owner TEXT, token TEXT, number INTEGER,
since INTEGER, until INTEGER)"""
PRAGMAS = ("journal_mode = WAL", "synchronous = NORMAL", "busy_timeout = 15000")


def values(task: int) -> dict[str, Any]:
    """What a claim binds."""
    now = time.time_ns() // 1_000_000
    return {
        "key": f"s{task}",
        "owner": "w",
        "token": secrets.token_hex(16),
        "now": now,
        "end": now + TTL_MS,
    }


async def raw_aiosqlite(opened: AsyncExitStack, path: Path, _: str) -> Call:
    """The claim's SQL on one connection of aiosqlite, one transaction at a time."""
    connection = await opened.enter_async_context(aiosqlite.connect(path, isolation_level=None))
    for pragma in PRAGMAS:
        await connection.execute(f"PRAGMA {pragma}")
    await connection.execute(TABLE)
    lock = asyncio.Lock()

    async def call(task: int, _: int) -> None:
        async with lock:
            await connection.execute("BEGIN IMMEDIATE")
            async with connection.execute(CLAIM, values(task)) as cursor:
                await cursor.fetchall()
            await connection.execute("COMMIT")

    return call


async def raw_sqlalchemy(opened: AsyncExitStack, path: Path, _: str) -> Call:
    """The claim's SQL on SQLAlchemy's asyncio engine."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}", pool_size=8)
    opened.push_async_callback(engine.dispose)
    async with engine.begin() as connection:
        for pragma in PRAGMAS:
            await connection.exec_driver_sql(f"PRAGMA {pragma}")
        await connection.exec_driver_sql(TABLE)
    statement, lock = text(CLAIM), asyncio.Lock()

    async def call(task: int, _: int) -> None:
        async with lock, engine.begin() as connection:
            (await connection.execute(statement, values(task))).fetchall()

    return call


OTHERS: dict[str, Callable[[Path], float]] = {
    f"claim, {THREADS} threads on one store": lambda path: threads(path, stores=1, count=THREADS),
    "claim, 1 thread": lambda path: threads(path, stores=1, count=1),
    "claim, 32 threads on one store": lambda path: threads(path, stores=1, count=32),
    "claim, 32 threads with a store each": lambda path: threads(path, stores=32, count=32),
    "claim, 64 tasks on one store": lambda path: asyncio.run(stores(path, 1)),
    "claim, 64 tasks with a store each": lambda path: asyncio.run(stores(path, TASKS)),
    "claim, 64 tasks, raw aiosqlite": lambda path: asyncio.run(tasks(raw_aiosqlite, path, "")),
    "claim, 64 tasks, raw SQLAlchemy": lambda path: asyncio.run(tasks(raw_sqlalchemy, path, "")),
}

if __name__ == "__main__":
    main()
