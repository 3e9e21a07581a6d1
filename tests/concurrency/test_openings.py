"""Many tasks that open one busy database: they hold up nobody who opens, or waits on, another one (K-TX-4)."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from lash_store import AsyncSessionStore, NewWork, SessionStore
from lash_store._kernel.threads import Lanes, Pool
from lash_store.errors import StoreBusyError
from lash_store.session.directory import AsyncSessionDirectory
from tests.support.turns import everything_locked, join, started

BUDGET_MS = 2_000
MANY = 80


def nothing(_: object) -> object:
    return None


async def request(path: Path) -> None:
    async with AsyncSessionStore.open(path, session_id="s", busy_timeout_ms=BUDGET_MS) as store:
        await store.work_depth()


@pytest.mark.sqlite("files")
def test_k_tx_4_many_that_open_a_locked_file_hold_up_nobody_else(tmp_path: Path) -> None:
    hot, cold, new = (tmp_path / f"{name}.db" for name in ("hot", "cold", "new"))
    SessionStore.open(hot, session_id="s").close()

    async def main() -> None:
        async with AsyncSessionStore.open(cold, session_id="s") as store:
            await store.enqueue_work(NewWork([1]))
            begun_s = time.monotonic()
            tasks = [asyncio.create_task(request(hot)) for _ in range(MANY)]
            await asyncio.sleep(0.05)
            assert await store.wait_until(nothing, timeout_ms=50) is None
            async with store.hold(owner_id="ann", ttl_ms=1_000, timeout_ms=50):
                pass
            async with AsyncSessionStore.open(new, session_id="s") as another:
                await another.enqueue_work(NewWork([1]))
            sessions = AsyncSessionDirectory(tmp_path / "sessions")
            await (await sessions.create("a", model="m")).aclose()
            assert len(await sessions.list()) == 1
            assert not any(task.done() for task in tasks)
            found = await asyncio.gather(*tasks, return_exceptions=True)
            assert [type(each) for each in found] == [StoreBusyError] * MANY
            assert time.monotonic() - begun_s < 1.9 * BUDGET_MS / 1_000
            for each in found:
                assert isinstance(each, StoreBusyError)
                assert BUDGET_MS - 50 <= each.waited_ms < 1.9 * BUDGET_MS

    with everything_locked(hot):
        asyncio.run(main())
    asyncio.run(request(hot))


@pytest.mark.sqlite("files")
def test_k_tx_4_who_is_cancelled_in_a_lane_leaves_it(tmp_path: Path) -> None:
    hot = tmp_path / "hot.db"
    SessionStore.open(hot, session_id="s").close()

    async def main() -> None:
        tasks = [asyncio.create_task(request(hot)) for _ in range(MANY)]
        await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        begun_s = time.monotonic()
        await asyncio.wait(tasks)
        assert (
            time.monotonic() - begun_s < BUDGET_MS / 2_000
        )  # who opens goes on without its caller

    with everything_locked(hot):
        asyncio.run(main())
    asyncio.run(request(hot))


@pytest.mark.sqlite("files")
def test_k_tx_3_an_opening_in_a_thread_has_its_budget_once(tmp_path: Path) -> None:
    """Whether it waits for another of this process that opens it, or for the file."""
    hot = tmp_path / "hot.db"
    SessionStore.open(hot, session_id="s").close()
    waited: list[tuple[float, int]] = []

    def open_it() -> None:
        begun_s = time.monotonic()
        try:
            SessionStore.open(hot, session_id="s", busy_timeout_ms=1_000).close()
        except StoreBusyError as busy:
            waited.append((time.monotonic() - begun_s, busy.waited_ms))

    with everything_locked(hot):
        for _ in range(2):
            join(*started(*[open_it] * 8))
    assert len(waited) == 16
    for seconds, told_ms in waited:
        assert 0.95 <= seconds < 1.9
        assert abs(told_ms - seconds * 1_000) < 200


def test_of_one_lane_two_run_at_once_in_their_order() -> None:
    lanes = Lanes(Pool("test-lane", 6))
    lock, running, most = threading.Lock(), [0], [0]
    order: list[int] = []
    done = threading.Semaphore(0)

    def job(number: int) -> Any:
        def run() -> None:
            with lock:
                order.append(number)
                running[0] += 1
                most[0] = max(most[0], running[0])
            time.sleep(0.005)
            with lock:
                running[0] -= 1
            done.release()
            if number % 5 == 0:
                raise SystemExit  # reported, and the next one runs

        return run

    hooked, threading.excepthook = threading.excepthook, lambda _: None
    try:
        started = [lanes.submit("a", job(number)) for number in range(20)]
        other = threading.Event()
        assert lanes.submit("b", other.set)
        assert other.wait(20)
        for _ in range(20):
            assert done.acquire(timeout=20)
    finally:
        threading.excepthook = hooked
    assert started[:2] == [True, True]
    assert not all(started)
    assert most[0] <= 2
    assert sorted(order) == list(range(20))
    assert all(abs(at - number) <= 2 for at, number in enumerate(order))
    deadline_s = time.monotonic() + 20
    while lanes._running and time.monotonic() < deadline_s:
        time.sleep(0.001)
    assert not lanes._running
    assert not lanes._waiting
