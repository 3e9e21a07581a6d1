"""One process among busy ones, and one with a thousand files.

python -m bench.crowd [--json FILE]

A lone process's renewal beside three processes of 500 tasks each, on one file. A thousand sessions
used in turn: threads, descriptors, memory, and what a call costs on one that had been closed. A
thousand calls that wait on as many locked files: the processor time of waiting. It uses nothing
that an earlier commit has not, so that ``bench.compare`` can run it there.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from bench.report import arguments, publish
from lash_store import AsyncSessionStore, SessionStore

CROWD = 3
TASKS = 500
RENEWALS = 400
FILES = 1_000
SETTLE_S = 10.0
"""How long the waits are left to begin: each opens its file again, which had been closed."""

WAIT_S = 5.0
TTL_MS = 600_000


def main() -> None:
    """Measure every case and publish it."""
    options = arguments(__doc__)
    figures: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        us = lone_renewal(Path(folder) / "crowd.db")
        figures.append(
            {"case": f"a renewal beside {CROWD} processes of {TASKS} tasks", "median_us": us}
        )
        for what, how in (("in turn", "sync"), ("in turn", "asyncio"), ("waiting", "asyncio")):
            figures.append(_measured(what, how, Path(folder) / f"{what}-{how}"))
    publish(figures, options.json)


def _measured(what: str, how: str, folder: Path) -> dict[str, Any]:
    """Measure in a process of its own, whose memory and descriptors are its own."""
    folder.mkdir()
    command = [sys.executable, __file__, f"--{what.replace(' ', '-')}", how, str(folder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    figure: dict[str, Any] = {"case": f"{FILES} sessions {what}, {how}"}
    for line in done.stdout.splitlines():
        name, value = line.split()
        figure[name] = float(value)
    return figure


def lone_renewal(path: Path) -> float:
    """Return the median of a renewal, in microseconds."""
    with SessionStore.open(path, session_id="lone") as store:
        lease: Any = store.claim_lease(owner_id="w", ttl_ms=TTL_MS)
        spawning = multiprocessing.get_context("spawn")
        ready, stop = spawning.Semaphore(0), spawning.Event()
        crowd = [
            spawning.Process(target=_hurry, args=(str(path), number, ready, stop))
            for number in range(CROWD)
        ]
        for process in crowd:
            process.start()
        for _ in crowd:
            ready.acquire()
        times = []
        for _ in range(RENEWALS):
            started = time.perf_counter_ns()
            store.renew_lease(lease.fence, ttl_ms=TTL_MS)
            times.append((time.perf_counter_ns() - started) / 1000)
            time.sleep(0.002)
        stop.set()
        for process in crowd:
            process.join()
    return round(statistics.median(times), 1)


def _hurry(path: str, number: int, ready: Any, stop: Any) -> None:
    async def main() -> None:
        async with AsyncSessionStore.open(path, session_id=f"c{number}") as store:

            async def task(at: int) -> None:
                while not stop.is_set():
                    await store.claim_lease(
                        owner_id="w", ttl_ms=TTL_MS, session_id=f"c{number}-{at}"
                    )

            running = [asyncio.create_task(task(at)) for at in range(TASKS)]
            await asyncio.sleep(0.5)
            ready.release()
            await asyncio.gather(*running)

    asyncio.run(main())


def in_turn(how: str, folder: Path) -> None:
    """Use a thousand sessions one after the other, twice, and say what is open then."""
    started_kib = _resident_kib()
    descriptors, running = len(os.listdir("/proc/self/fd")), threading.active_count()
    seconds = asyncio.run(_asyncio_in_turn(folder)) if how == "asyncio" else _sync_in_turn(folder)
    opened, again, (more, threads, kib) = seconds
    print("first_use_us", round(opened / FILES * 1e6, 1))
    print("again_us", round(again / FILES * 1e6, 1))
    print("descriptors", more - descriptors)
    print("threads", threads - running)
    print("mib", round((kib - started_kib) / 1024, 1))


def _state() -> tuple[int, int, int]:
    return len(os.listdir("/proc/self/fd")), threading.active_count(), _resident_kib()


def _resident_kib() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmRSS:")[1].split()[0])


def _sync_in_turn(folder: Path) -> tuple[float, float, tuple[int, int, int]]:
    with contextlib.ExitStack() as opened:
        started = time.perf_counter()
        stores = []
        for at in range(FILES):
            store = SessionStore.open(folder / f"{at}.db", session_id="s")
            stores.append(opened.enter_context(store))
            store.claim_lease(owner_id="w", ttl_ms=TTL_MS)
        middle = time.perf_counter()
        for store in stores:
            store.claim_lease(owner_id="w", ttl_ms=TTL_MS)
        ended = time.perf_counter()
        return middle - started, ended - middle, _state()


async def _asyncio_in_turn(folder: Path) -> tuple[float, float, tuple[int, int, int]]:
    async with contextlib.AsyncExitStack() as opened:
        started = time.perf_counter()
        stores = []
        for at in range(FILES):
            store = AsyncSessionStore.open(folder / f"{at}.db", session_id="s")
            stores.append(await opened.enter_async_context(store))
            await store.claim_lease(owner_id="w", ttl_ms=TTL_MS)
        middle = time.perf_counter()
        for store in stores:
            await store.claim_lease(owner_id="w", ttl_ms=TTL_MS)
        ended = time.perf_counter()
        return middle - started, ended - middle, _state()


def waiting(folder: Path) -> None:
    """Wait on a thousand files that others keep locked; say what that costs the processor."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)

    async def main() -> None:
        async with contextlib.AsyncExitStack() as opened:
            stores = []
            for at in range(FILES):
                store = AsyncSessionStore.open(
                    folder / f"{at}.db", session_id="s", busy_timeout_ms=60_000
                )
                stores.append(await opened.enter_async_context(store))
            locks = []
            for at in range(FILES):
                lock = sqlite3.connect(folder / f"{at}.db", isolation_level=None)
                lock.execute("BEGIN IMMEDIATE")
                locks.append(lock)
            calls = [
                asyncio.create_task(store.claim_lease(owner_id="w", ttl_ms=TTL_MS))
                for store in stores
            ]
            await asyncio.sleep(SETTLE_S)
            before = time.process_time()
            await asyncio.sleep(WAIT_S)
            print("cpu_ms", round((time.process_time() - before) / WAIT_S * 1000, 1))
            for lock in locks:
                lock.execute("COMMIT")
                lock.close()
            await asyncio.gather(*calls)

    asyncio.run(main())


if __name__ == "__main__":
    if sys.argv[1:2] == ["--in-turn"]:
        in_turn(sys.argv[2], Path(sys.argv[3]))
    elif sys.argv[1:2] == ["--waiting"]:
        waiting(Path(sys.argv[3]))
    else:
        main()
