"""Recording what a step gave, while the write lock can't be had; and stores that only read."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lash_store import AsyncEffectStore, EffectStore, Replayed
from lash_store.errors import ReadOnlyStoreError
from tests.support.databases import all_rows, apart


@contextmanager
def locker(path: Path) -> Iterator[tuple[threading.Event, threading.Event, threading.Event]]:
    """Another process that takes the write lock when it is told to, and lets go when it is told to."""
    take, taken, let_go = (threading.Event() for _ in range(3))
    with apart(EffectStore.open, path) as other:

        def hold() -> None:
            take.wait(30)
            with other.begin():
                taken.set()
                let_go.wait(30)

        thread = threading.Thread(target=hold)
        thread.start()
        try:
            yield take, taken, let_go
        finally:
            take.set()
            let_go.set()
            thread.join()


@pytest.mark.parametrize("cancelled", [False, True], ids=["awaited", "cancelled"])
def test_e_run_1_an_outcome_is_recorded_although_the_budget_is_spent(
    path: Path, cancelled: bool
) -> None:
    """The function has run: as long as the claim holds, its outcome is not given up."""

    async def main() -> None:
        with locker(path) as (take, taken, let_go):
            async with AsyncEffectStore.open(path, busy_timeout_ms=150) as effects:
                over = asyncio.Event()

                async def function() -> str:
                    take.set()
                    await asyncio.to_thread(taken.wait, 30)
                    over.set()
                    return "outcome"

                task = asyncio.create_task(effects.run("s", "k", None, function))
                await over.wait()
                await asyncio.sleep(0.02)  # it waits for the lock by now, and not for long
                if cancelled:
                    task.cancel()
                await asyncio.sleep(0.4)  # the budget is spent, more than once
                assert not task.done()
                let_go.set()
                if cancelled:
                    with pytest.raises(asyncio.CancelledError):
                        await task
                else:
                    assert await task == "outcome"
                assert await effects.look_up_effect("s", "k") == Replayed("outcome")

    asyncio.run(main())


def test_e_run_1_a_store_that_only_reads_replays_and_begins_nothing(path: Path) -> None:
    calls: list[int] = []

    async def function() -> None:
        calls.append(1)

    async def main() -> None:
        async with AsyncEffectStore.open(path, read_only=True) as effects:
            assert await effects.run("s", "done", None, function) == 7
            with pytest.raises(ReadOnlyStoreError):
                await effects.run("s", "never begun", None, function)

    with EffectStore.open(path) as effects:
        effects.run("s", "done", None, lambda: 7)
        before = all_rows(path)
        asyncio.run(main())
        assert all_rows(path) == before
    assert calls == []
