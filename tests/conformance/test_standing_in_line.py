"""K-HOLD-6: of those of one process that wait for a lease, one looks for all."""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from lash_store import AsyncSessionStore, ProcessRegistry, SessionStore
from lash_store._kernel.observing import Event, observed_by
from lash_store._stores import lines
from lash_store.errors import LeaseHeldError
from tests.support.leased import JOBS, metadata
from tests.support.registries import register
from tests.support.turns import PATIENCE_S, eventually, join, started

MANY = 40
LONG: dict[str, Any] = {"ttl_ms": 60_000, "timeout_ms": 60_000}


class Claims:
    """Counts them."""

    def __init__(self) -> None:
        self.count = 0

    def before(self, event: Event) -> None:
        self.count += event.operation == "claim_lease" and event.sql.startswith("INSERT")

    def after(self, event: Event) -> None: ...


def standing() -> int:
    """How many stand in line, the first ones as well."""
    return sum(len(line) for line in list(lines._lines.values()))


def test_k_hold_6_tasks_that_wait_claim_once_or_twice_each(path: Path) -> None:
    entered: list[int] = []

    async def main() -> None:
        async with AsyncSessionStore.open(path, session_id="s") as store:

            async def wait(number: int) -> None:
                async with store.hold(owner_id=f"worker-{number}", **LONG) as held:
                    entered.append(number)
                    held.check()

            async with store.hold(owner_id="first", **LONG):
                tasks = [asyncio.create_task(wait(number)) for number in range(MANY)]
                while standing() < MANY:
                    await asyncio.sleep(0.001)
            await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE_S)

    counting: Any = Claims()
    with observed_by(counting):
        asyncio.run(main())
    assert entered == list(range(MANY))  # in the order in which they came
    # As it comes, once it is the first, and once it is free; each when all looked: 800.
    assert MANY <= counting.count <= 4 * MANY
    assert standing() == 0


def test_k_hold_6_who_stands_behind_claims_nothing_as_it_waits(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it looks, now and then, by a snapshot: who is behind others the less often."""
    monkeypatch.setattr(lines, "_LOOK_AGAIN_S", 0.02)
    looks: list[str] = []

    class Looks:
        def before(self, event: Event) -> None:
            if event.kind == "statement" and event.operation == "wait":
                looks.append(event.sql)

        def after(self, event: Event) -> None: ...

    async def main() -> int:
        async with AsyncSessionStore.open(path, session_id="s") as store:

            async def wait(number: int) -> None:
                async with store.hold(owner_id=f"worker-{number}", **LONG):
                    pass

            async with store.hold(owner_id="first", **LONG):
                tasks = [asyncio.create_task(wait(number)) for number in range(MANY)]
                while standing() < MANY:
                    await asyncio.sleep(0.001)
                before = counting.count
                async with asyncio.timeout(PATIENCE_S):
                    while len(looks) < 10:
                        await asyncio.sleep(0.001)
                claimed = counting.count - before
            await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE_S)
        return int(claimed)

    counting: Any = Claims()
    watching: Any = Looks()
    with observed_by(counting), observed_by(watching):
        assert asyncio.run(main()) <= 1  # the first, as it comes to look for all


def test_k_hold_6_who_comes_anew_and_would_wait_overtakes_nobody(path: Path) -> None:
    order: list[str] = []
    with SessionStore.open(path, session_id="s") as store:

        def patient() -> None:
            with store.hold(owner_id="patient", **LONG):
                order.append("patient")

        with store.hold(owner_id="greedy", **LONG):
            waiting = started(patient)
            eventually(lambda: standing() == 1)
        with store.hold(owner_id="greedy", **LONG):
            order.append("greedy")
        join(*waiting)
    assert order == ["patient", "greedy"]


def test_k_hold_6_consumers_work_that_takes_long_holds_up_no_wait_for_a_lease(
    path: Path, tmp_path: Path
) -> None:
    """A wait looks by itself, not on the threads of such work."""
    done = threading.Event()

    async def main() -> None:
        async with AsyncExitStack() as opened:
            store = await opened.enter_async_context(AsyncSessionStore.open(path, session_id="s"))
            busy = [
                await opened.enter_async_context(
                    AsyncSessionStore.open(tmp_path / f"busy-{number}.db", session_id="s")
                )
                for number in range(6)
            ]

            async def wait() -> str:
                async with store.hold(owner_id="waits", **LONG):
                    return "held"

            async with store.hold(owner_id="first", **LONG):
                working = [
                    asyncio.create_task(each.transact(lambda _: done.wait(60))) for each in busy
                ]
                waiting = asyncio.create_task(wait())
                while standing() < 1:
                    await asyncio.sleep(0.001)
            assert await asyncio.wait_for(waiting, PATIENCE_S) == "held"
            assert not any(each.done() for each in working)
            done.set()
            await asyncio.gather(*working)

    try:
        asyncio.run(main())
    finally:
        done.set()


def test_k_hold_6_threads_that_wait_go_on_one_after_another(path: Path) -> None:
    with SessionStore.open(path, session_id="s") as store:
        entered: list[int] = []

        def wait(number: int) -> None:
            with store.hold(owner_id=f"worker-{number}", **LONG):
                entered.append(number)

        with store.hold(owner_id="first", **LONG):
            threads = []
            for number in range(8):
                threads += started(lambda number=number: wait(number))  # type: ignore[misc] # reason: of this round
                eventually(lambda expected=number + 1: standing() == expected)  # type: ignore[misc] # reason: likewise
        join(*threads)
        assert entered == list(range(8))
        assert store.current_lease() is None
    assert standing() == 0


@pytest.mark.parametrize("how", ["cancelled", "late"])
def test_k_hold_6_whoever_leaves_the_line_has_the_next_one_look(path: Path, how: str) -> None:
    async def main() -> None:
        async with AsyncSessionStore.open(path, session_id="s") as store:

            async def wait(owner_id: str, timeout_ms: int = 60_000) -> str:
                async with store.hold(owner_id=owner_id, ttl_ms=60_000, timeout_ms=timeout_ms):
                    return owner_id

            async with store.hold(owner_id="first", **LONG):
                leaving = asyncio.create_task(wait("leaves", 200 if how == "late" else 60_000))
                while standing() < 1:
                    await asyncio.sleep(0.001)
                stays = asyncio.create_task(wait("stays"))
                while standing() < 2:
                    await asyncio.sleep(0.001)
                if how == "cancelled":
                    leaving.cancel()
                with pytest.raises(LeaseHeldError if how == "late" else asyncio.CancelledError):
                    await leaving
                while standing() != 1:
                    await asyncio.sleep(0.001)
            assert await asyncio.wait_for(stays, PATIENCE_S) == "stays"

    asyncio.run(main())
    assert standing() == 0


def test_k_hold_6_one_whose_loop_runs_no_more_keeps_nobody_waiting_for_long(path: Path) -> None:
    """It is the first, and never looks; those behind it look by themselves."""
    loop = asyncio.new_event_loop()
    with SessionStore.open(path, session_id="s") as store:
        with store.hold(owner_id="first", **LONG):
            other = AsyncSessionStore.open(path, session_id="s")

            async def wait() -> None:
                async with other.hold(owner_id="stopped", **LONG):
                    pass

            task = loop.create_task(wait())
            while standing() < 1:
                loop.run_until_complete(asyncio.sleep(0.001))
            behind = started(lambda: enter(store))
            eventually(lambda: standing() == 2)
        join(*behind)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(task)
        loop.run_until_complete(other.aclose())
        loop.close()
    assert standing() == 0


def enter(store: SessionStore) -> None:
    with store.hold(owner_id="behind", **LONG):
        pass


@pytest.mark.posix("forks")
def test_k_hold_6_nobody_of_the_parent_stands_in_a_child_s_line(path: Path) -> None:
    with SessionStore.open(path, session_id="s") as store:
        with store.hold(owner_id="first", **LONG):
            waiting = started(lambda: enter(store))
            eventually(lambda: standing() == 1)
            child = os.fork()
            if child == 0:
                os._exit(standing())
            _, status = os.waitpid(child, 0)
            assert os.waitstatus_to_exitcode(status) == 0
        join(*waiting)


def test_k_hold_6_leases_of_different_names_don_t_wait_for_each_other(path: Path) -> None:
    url = f"sqlite:///{path}"
    with (
        SessionStore.open(url, session_id="a") as one,
        SessionStore.open(url, session_id="b") as two,
    ):
        with one.begin() as tx:
            metadata.create_all(tx.connection)
        with ProcessRegistry.open(url) as registry:
            for name in "ab":
                register(registry, name)
            with one.hold(owner_id="first", **LONG), JOBS.hold(one, "a", owner_id="first", **LONG):
                behind = started(lambda: enter(one))
                eventually(lambda: standing() == 1)
                for free in (
                    two.hold(owner_id="other", **LONG),
                    registry.hold("a", owner_id="other", **LONG),
                    JOBS.hold(one, "b", owner_id="other", **LONG),
                ):
                    with free:
                        assert standing() == 1
            join(*behind)
