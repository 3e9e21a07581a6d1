"""Who is woken when, on which threads work runs, and what delays nobody."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lash_store import AsyncSessionStore, SessionFence, SessionLease, SessionStore
from lash_store._kernel.observing import Event, Kind, observed_by
from lash_store._kernel.watching import ANYTHING, Waiter
from lash_store.errors import LeaseLostError, NestedTransactionError, StoreClosedError
from lash_store.session.tx import SessionTx
from lash_store.testing import run_as_group
from tests.support.databases import all_rows, apart, database_of
from tests.support.layouts import on_server
from tests.support.turns import (
    PATIENCE_S,
    eventually,
    eventually_in_loop,
    held,
    in_line,
    join,
    one_group,
    outcome,
    started,
)

NOBODYS = SessionFence("s", "nobody", "none", 1)


class Parking:
    """Parks the thread at the first event that is meant, and counts commits."""

    def __init__(self, kind: Kind, operation: str | None = None, *, after: bool = False) -> None:
        self._meant = kind, operation
        self._after = after
        self.reached, self.go = threading.Event(), threading.Event()
        self.commits = 0

    def before(self, event: Event) -> None:
        if not self._after:
            self._park(event)

    def after(self, event: Event) -> None:
        self.commits += event.kind == "commit"
        if self._after:
            self._park(event)

    def _park(self, event: Event) -> None:
        kind, operation = self._meant
        if (
            event.kind == kind
            and operation in (None, event.operation)
            and not self.reached.is_set()
        ):
            self.reached.set()
            assert self.go.wait(PATIENCE_S)


def claim(store: Any, owner_id: str = "ann", session_id: str | None = None) -> Any:
    return store.claim_lease(owner_id=owner_id, ttl_ms=60_000, session_id=session_id)


# Who is woken.


def test_each_loop_is_told_once_of_a_group(path: Path, store: SessionStore) -> None:
    told: dict[str, int] = {}
    results: dict[str, list[Any]] = {}
    patched = threading.Barrier(3, timeout=PATIENCE_S)

    async def main(name: str) -> None:
        mine = await AsyncSessionStore.open(path, session_id=name)
        loop = asyncio.get_running_loop()
        original = loop.call_soon_threadsafe

        def counting(*arguments: Any, **options: Any) -> Any:
            told[name] = told.get(name, 0) + 1
            return original(*arguments, **options)

        await asyncio.to_thread(patched.wait)
        loop.call_soon_threadsafe = counting  # type: ignore[method-assign, assignment] # reason: to count
        calls = [claim(mine, session_id=f"{name}{at}") for at in range(10)]
        lost = [mine.renew_lease(NOBODYS, ttl_ms=1) for _ in range(10)]
        results[name] = await asyncio.gather(*calls, *lost, return_exceptions=True)
        loop.call_soon_threadsafe = original  # type: ignore[method-assign] # reason: it is counted
        await mine.aclose()

    parking = Parking("commit", "nothing is parked")
    threads = started(*(partial(asyncio.run, main(name)) for name in ("one", "two")))
    with observed_by(parking), one_group(store):
        patched.wait()
        eventually(lambda: in_line(store) == 40)
    join(*threads)
    assert told == {"one": 1, "two": 1}
    assert parking.commits == 2  # the holder's, and the one of forty calls
    for found in results.values():
        assert [type(each) for each in found] == [SessionLease] * 10 + [LeaseLostError] * 10


def test_k_group_1_nothing_is_answered_before_commit(path: Path, store: SessionStore) -> None:
    parking = Parking("commit", "renew_lease")
    answered: list[Any] = []
    alone = SessionStore.open(path, session_id="t")

    async def main() -> None:
        mine = await AsyncSessionStore.open(path, session_id="u")
        before = all_rows(path)
        with held(store):
            threads = started(lambda: answered.append(claim(alone)))
            await eventually_in_loop(lambda: in_line(store) == 1)
            tasks = [asyncio.create_task(claim(mine, session_id=f"s{at}")) for at in range(5)]
            tasks.append(asyncio.create_task(mine.renew_lease(NOBODYS, ttl_ms=1)))
            await eventually_in_loop(lambda: in_line(store) == 7)
            calls = list(database_of(store).writer.turns.waiting)
            database_of(store).writer._bound_s = 1e9
        await eventually_in_loop(parking.reached.is_set)
        for _ in range(100):
            await asyncio.sleep(0)
        assert not answered
        assert not any(task.done() for task in tasks)
        assert not any(call.settled for call in calls)
        assert all_rows(path) == before
        parking.go.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(each) for each in results] == [SessionLease] * 5 + [LeaseLostError]
        await asyncio.to_thread(join, *threads)
        assert len(all_rows(path)["session_execution_leases"]) == 6
        await mine.aclose()

    with observed_by(parking), alone:
        asyncio.run(main())
    assert isinstance(answered[0], SessionLease)


def test_a_commit_of_a_group_wakes_who_waits_for_it(path: Path, store: SessionStore) -> None:
    """Once it is committed, and not before; whoever of the group it was."""
    parking = Parking("commit")
    woken = threading.Event()
    found: list[Any] = []
    with SessionStore.open(path, session_id="t") as other:

        def wait() -> None:
            found.append(other.wait_until(lambda tx: tx.current_lease(), timeout_ms=60_000))

        async def wait_in_loop() -> None:
            mine = await AsyncSessionStore.open(path, session_id="t")
            found.append(await mine.wait_until(lambda tx: tx.current_lease(), timeout_ms=60_000))
            await mine.aclose()

        threads = started(wait, lambda: asyncio.run(wait_in_loop()))
        eventually(lambda: len(store.watch.waiters) == 2)
        with store.watch.subscribed(Waiter(woken.set), [ANYTHING]), observed_by(parking):
            woken.clear()
            results: list[Any] = []
            threads += started(
                lambda: results.extend(
                    run_as_group(
                        partial(store.put_blob, b"x"),
                        partial(store.renew_lease, NOBODYS, ttl_ms=1),
                        partial(other.claim_lease, owner_id="bob", ttl_ms=60_000),
                    )
                )
            )
            assert parking.reached.wait(PATIENCE_S)
            # A server tells that something was committed, if by others and elsewhere.
            assert on_server() or not woken.is_set()
            assert found == []
            parking.go.set()
            assert woken.wait(PATIENCE_S)
        join(*threads)
    assert found == [results[2], results[2]]


# On which threads work runs.


def test_k_group_2_consumers_work_runs_on_their_own_thread_or_the_librarys(
    path: Path, store: SessionStore
) -> None:
    """Whoever leads: a thread's own call comes before, after, and between those of a loop."""
    own: list[tuple[str, Any, Any]] = []
    of_loops: list[tuple[str, str]] = []

    def noting(name: str) -> Callable[[SessionTx], None]:
        return lambda tx: of_loops.append((name, threading.current_thread().name))

    def by_thread(name: str, *, repeatable: bool) -> None:
        me = threading.current_thread()
        store.transact(
            lambda tx: own.append((name, me, threading.current_thread())), repeatable=repeatable
        )

    def by_block() -> None:
        with store.begin():
            own.append(("begin", threading.current_thread(), threading.current_thread()))

    async def main() -> None:
        mine = await AsyncSessionStore.open(path, session_id="u")
        threads, tasks, standing = [], [], 0
        with held(store):
            for number in range(3):
                for work in (
                    partial(claim, store, session_id=f"t{number}"),
                    partial(by_thread, f"repeatable {number}", repeatable=True),
                    partial(by_thread, f"alone {number}", repeatable=False),
                    by_block,
                ):
                    threads += started(work)
                    standing += 1
                    await eventually_in_loop(lambda n=standing: in_line(store) == n)  # type: ignore[misc] # reason: a default
                for awaitable in (
                    claim(mine, session_id=f"l{number}"),
                    mine.transact(noting(f"repeatable {number}"), repeatable=True),
                    mine.transact(noting(f"alone {number}")),
                ):
                    tasks.append(asyncio.create_task(awaitable))
                    standing += 1
                    await eventually_in_loop(lambda n=standing: in_line(store) == n)  # type: ignore[misc] # reason: a default
        await asyncio.gather(*tasks)
        await mine.read(noting("read"))
        await mine.wait_until(noting("look"), timeout_ms=0)
        await asyncio.to_thread(join, *threads)
        await mine.aclose()

    asyncio.run(main())
    assert len(own) == 9
    assert all(expected is ran for _, expected, ran in own)
    assert len(of_loops) == 8
    assert {thread for _, thread in of_loops} == {"lash-store-work"}


def test_repeatable_work_joins_a_group(path: Path, store: SessionStore) -> None:
    parking = Parking("commit", "nothing is parked")

    async def main() -> list[Any]:
        mine = await AsyncSessionStore.open(path, session_id="u")
        with observed_by(parking), one_group(store):
            tasks = [
                asyncio.create_task(mine.transact(partial(claim, session_id="a"), repeatable=True)),
                asyncio.create_task(claim(mine, session_id="b")),
                asyncio.create_task(mine.transact(lambda _: 1 / 0, repeatable=True)),
                asyncio.create_task(mine.transact(partial(claim, session_id="c"), repeatable=True)),
            ]
            await eventually_in_loop(lambda: in_line(store) == 4)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await mine.aclose()
        return results

    first, second, failed, last = asyncio.run(main())
    assert isinstance(failed, ZeroDivisionError)
    assert [each.fence.session_id for each in (first, second, last)] == ["a", "b", "c"]
    assert parking.commits == 2


@pytest.mark.parametrize("repeatable", [False, True])
def test_work_that_waited_for_another_process_runs_on_one_thread(
    path: Path, repeatable: bool
) -> None:
    """The timer takes the lock once it is free; everything else is done where the work runs."""
    holder = apart(SessionStore.open, path, session_id="s")

    async def main() -> None:
        mine = await AsyncSessionStore.open(path, session_id="u", busy_timeout_ms=60_000)

        def work(tx: SessionTx) -> tuple[str, int]:
            with pytest.raises(NestedTransactionError):
                claim(mine._store)
            claim(tx)
            count: int = tx.connection.exec_driver_sql(
                "SELECT count(*) FROM session_execution_leases"
            ).scalar_one()
            return threading.current_thread().name, count

        def reached_the_timer() -> bool:
            assert mine._store is not None
            queue = database_of(mine._store).connections.queue
            return queue is not None and queue._queued_s is not None

        with held(holder):
            task = asyncio.create_task(mine.transact(work, repeatable=repeatable))
            await eventually_in_loop(reached_the_timer)
        assert await task == ("lash-store-work", 1)
        await mine.aclose()

    with holder:
        asyncio.run(main())


# What delays nobody.


@pytest.mark.parametrize("kind", ["transact", "repeatable", "read", "begin"])
def test_long_works_on_some_files_delay_no_other(tmp_path: Path, kind: str) -> None:
    """More of them than there are threads for what is short."""
    go, inside = threading.Event(), threading.Semaphore(0)

    def long(tx: SessionTx) -> None:
        inside.release()
        assert go.wait(PATIENCE_S)

    def block(store: Any) -> None:
        with store.begin() as tx:
            long(tx)

    async def main() -> None:
        stores = [
            await AsyncSessionStore.open(tmp_path / f"{at}.db", session_id="s") for at in range(5)
        ]
        *busy, free = stores
        tasks: list[Any] = []
        for each in busy:
            sync = each._store
            assert sync is not None
            if kind == "begin":
                tasks.append(asyncio.create_task(asyncio.to_thread(block, sync)))
            elif kind == "read":
                tasks.append(asyncio.create_task(each.read(long)))
            else:
                # Behind an operation, with which it might be in one group.
                with held(sync):
                    tasks.append(asyncio.create_task(claim(each)))
                    work = each.transact(long, repeatable=kind == "repeatable")
                    tasks.append(asyncio.create_task(work))
                    await eventually_in_loop(lambda sync=sync: in_line(sync) == 2)  # type: ignore[misc] # reason: a default
        for _ in busy:
            assert await asyncio.to_thread(inside.acquire, timeout=PATIENCE_S)
        async with asyncio.timeout(PATIENCE_S):
            for _ in range(20):
                assert isinstance(await claim(free), SessionLease)
                assert await free.current_lease() is not None
                assert await free.transact(lambda _: 7) == 7
        go.set()
        await asyncio.gather(*tasks)
        for each in stores:
            await each.aclose()

    asyncio.run(main())


def test_k_group_5_no_read_joins_a_snapshot_that_was_there_before_it(
    path: Path, store: SessionStore
) -> None:
    """A read that takes long keeps its snapshot; what comes after a commit sees the commit."""
    parking = Parking("statement", "current_lease", after=True)

    async def main() -> None:
        mine = await AsyncSessionStore.open(path, session_id="s")
        with observed_by(parking):
            long = asyncio.create_task(mine.current_lease())
            await eventually_in_loop(parking.reached.is_set)
            for number in range(1, 4):
                lease = await mine.claim_lease(owner_id="ann", ttl_ms=60_000)
                assert isinstance(lease, SessionLease)
                reads = [mine.current_lease() for _ in range(number)]
                async with asyncio.timeout(PATIENCE_S):
                    assert await asyncio.gather(*reads) == [lease] * number
                await mine.release_lease(lease.fence)
            assert not long.done()
            parking.go.set()
            assert await long is None
        await mine.aclose()

    asyncio.run(main())


def test_a_read_whose_snapshot_ends_badly_delays_no_other(path: Path) -> None:
    class AtTheEnd:
        def __init__(self) -> None:
            self.fired = False

        def before(self, event: Event) -> None:
            if event.kind == "rollback" and not self.fired:
                self.fired = True
                raise sqlite3.OperationalError("the disk")

        def after(self, event: Event) -> None:
            pass

    async def main() -> None:
        async with AsyncSessionStore.open(path, session_id="s") as mine:
            failing = AtTheEnd()
            with observed_by(failing):
                assert await mine.current_lease() is None
                await eventually_in_loop(lambda: failing.fired)
            async with asyncio.timeout(PATIENCE_S):
                assert await mine.current_lease() is None

    asyncio.run(main())


@pytest.mark.parametrize("how", ["call", "block", "repeatable"])
def test_what_waits_on_a_store_that_is_closed_is_refused_at_once(
    path: Path, store: SessionStore, how: str
) -> None:
    closing = SessionStore.open(path, session_id="t", busy_timeout_ms=60_000)
    got: list[Any] = []

    def block() -> None:
        with closing.begin():
            pass

    works: dict[str, Callable[[], Any]] = {
        "call": partial(claim, closing),
        "block": block,
        "repeatable": partial(closing.transact, claim, repeatable=True),
    }
    with ExitStack() as stack:
        stack.enter_context(held(store))
        (thread,) = started(lambda: got.append(outcome(works[how])))
        eventually(lambda: in_line(store) == 1)
        closing.close()
        join(thread)
    assert isinstance(got[0], StoreClosedError)
    assert isinstance(claim(store), SessionLease)
