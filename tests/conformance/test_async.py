"""The asyncio store: same operations, whole transactions on threads, cancelling, closing."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lash_store import (
    AsyncDeployment,
    AsyncSessionStore,
    LeaseHeld,
    NewWork,
    SessionLease,
    SessionStore,
)
from lash_store._kernel.threads import CHORES
from lash_store.errors import (
    InvalidRecordError,
    LeaseLostError,
    NestedTransactionError,
    StoreBusyError,
    StoreClosedError,
    StoreOpenError,
)
from lash_store.session.tx import SessionTx
from lash_store.testing import ManualClock
from tests.support.databases import all_rows

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def claim(tx: SessionTx) -> SessionLease | LeaseHeld:
    return tx.claim_lease(owner_id="ann", ttl_ms=60_000)


def test_the_operations_are_those_of_the_store(path: Path) -> None:
    async def main() -> None:
        clock = ManualClock()
        async with AsyncSessionStore.open(path, session_id="s", clock=clock) as store:
            lease = await store.claim_lease(owner_id="ann", ttl_ms=100)
            assert isinstance(lease, SessionLease)
            assert isinstance(await store.claim_lease(owner_id="bob", ttl_ms=1), LeaseHeld)
            assert await store.current_lease() == lease
            renewed = await store.renew_lease(lease.fence, ttl_ms=200)
            assert renewed.expires_at_ms == clock.now_ms() + 200
            assert await store.release_lease(lease.fence) is True
            assert await store.release_lease(lease.fence) is False
            with pytest.raises(LeaseLostError, match="released"):
                await store.renew_lease(lease.fence, ttl_ms=1)
            await store.check_schema()

    asyncio.run(main())


def test_several_operations_are_one_transaction(path: Path) -> None:
    async def main() -> None:
        async with AsyncSessionStore.open(path, session_id="s") as store:
            with pytest.raises(ZeroDivisionError):
                await store.transact(lambda tx: (claim(tx), 1 / 0))
            assert await store.current_lease() is None
            assert await store.read(lambda tx: tx.current_lease()) is None

    asyncio.run(main())


def test_it_opens_by_await_and_by_its_first_operation(path: Path) -> None:
    async def main() -> None:
        store = await AsyncSessionStore.open(path, session_id="s")
        assert path.exists()
        await store.aclose()
        path.unlink()
        lazy = AsyncSessionStore.open(path, session_id="s")
        assert not path.exists()
        assert await lazy.current_lease() is None
        await lazy.aclose()

    asyncio.run(main())


def test_an_open_that_fails_says_so_each_time(tmp_path: Path) -> None:
    async def main() -> None:
        store = AsyncSessionStore.open(tmp_path / "no" / "x.db", session_id="s")
        for _ in range(2):
            with pytest.raises(StoreOpenError):
                await store.current_lease()
        with pytest.raises(StoreOpenError):
            async with store:
                pass
        await store.aclose()

    asyncio.run(main())


def test_in_memory(path: Path) -> None:
    async def main() -> None:
        async with AsyncSessionStore.open(None, session_id="s") as store:
            claims = [store.claim_lease(owner_id="ann", ttl_ms=0) for _ in range(20)]
            reads = [store.current_lease() for _ in range(20)]
            await asyncio.gather(*claims, *reads)
            lease = await store.claim_lease(owner_id="ann", ttl_ms=60_000)
            assert isinstance(lease, SessionLease)
            assert lease.fencing_token == 21

    asyncio.run(main())


def test_work_sees_the_callers_context(path: Path) -> None:
    async def main() -> None:
        variable.set("the caller's")
        async with AsyncSessionStore.open(path, session_id="s") as store:
            assert await store.transact(lambda _: variable.get()) == "the caller's"
            assert await store.read(lambda _: variable.get()) == "the caller's"

    asyncio.run(main())


def test_a_long_read_does_not_delay_a_renewal(path: Path) -> None:
    async def main() -> None:
        async with AsyncSessionStore.open(path, session_id="s") as store:
            lease = await store.claim_lease(owner_id="ann", ttl_ms=60_000)
            assert isinstance(lease, SessionLease)
            started, finish = threading.Event(), threading.Event()

            def long_read(tx: SessionTx) -> None:
                tx.current_lease()
                started.set()
                finish.wait()

            reading = asyncio.create_task(store.read(long_read))
            await asyncio.to_thread(started.wait)
            await store.renew_lease(lease.fence, ttl_ms=60_000)
            assert not reading.done()
            finish.set()
            await reading

    asyncio.run(main())


def test_work_cancelled_before_it_starts_does_not_run(path: Path) -> None:
    async def main() -> None:
        async with AsyncSessionStore.open(path, session_id="s") as store:
            entered, leave = threading.Event(), threading.Event()
            ran: list[str] = []

            def block(_: SessionTx) -> None:
                entered.set()
                leave.wait()

            first = asyncio.create_task(store.transact(block))
            await asyncio.to_thread(entered.wait)
            second = asyncio.create_task(store.transact(lambda _: ran.append("second")))
            await asyncio.sleep(0)
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            leave.set()
            await first
            await store.transact(lambda _: ran.append("third"))
            assert ran == ["third"]

    asyncio.run(main())


@pytest.mark.parametrize("times", [1, 3])
def test_work_cancelled_while_it_runs_is_waited_for(path: Path, times: int) -> None:
    async def main() -> None:
        async with AsyncSessionStore.open(path, session_id="s") as store:
            entered, leave = threading.Event(), threading.Event()

            def work(tx: SessionTx) -> None:
                claim(tx)
                entered.set()
                leave.wait()

            task = asyncio.create_task(store.transact(work))
            await asyncio.to_thread(entered.wait)
            for _ in range(times):
                task.cancel()
                await asyncio.sleep(0.01)
                assert not task.done()
            leave.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert isinstance(await store.current_lease(), SessionLease)  # the outcome is known

    asyncio.run(main())


def test_an_error_of_cancelled_work_rolls_back_and_is_not_lost_track_of(path: Path) -> None:
    async def main() -> None:
        async with AsyncSessionStore.open(path, session_id="s") as store:
            entered, leave = threading.Event(), threading.Event()

            def work(tx: SessionTx) -> None:
                claim(tx)
                entered.set()
                leave.wait()
                raise ValueError

            task = asyncio.create_task(store.transact(work))
            await asyncio.to_thread(entered.wait)
            task.cancel()
            await asyncio.sleep(0)
            leave.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await store.current_lease() is None

    asyncio.run(main())


def test_stop_iteration_of_the_work_is_an_error_not_a_hang(path: Path) -> None:
    async def main() -> None:
        async with AsyncSessionStore.open(path, session_id="s") as store:
            with pytest.raises(RuntimeError, match="StopIteration"):
                await asyncio.wait_for(store.transact(lambda _: next(iter(()))), timeout=5)
            assert await store.current_lease() is None

    asyncio.run(main())


def test_the_work_can_not_begin_another_transaction(path: Path) -> None:
    async def main() -> None:
        async with AsyncSessionStore.open(path, session_id="s") as store:
            inner = await store._opened()
            with pytest.raises(NestedTransactionError):
                await store.transact(lambda _: inner.begin().__enter__())

    asyncio.run(main())


def test_aclose_finishes_what_runs_and_refuses_the_rest(path: Path) -> None:
    async def main() -> None:
        store = await AsyncSessionStore.open(path, session_id="s")
        entered, leave = threading.Event(), threading.Event()

        def work(tx: SessionTx) -> str:
            entered.set()
            leave.wait()
            claim(tx)
            return "done"

        running = asyncio.create_task(store.transact(work))
        await asyncio.to_thread(entered.wait)
        waiting = asyncio.create_task(store.claim_lease(owner_id="bob", ttl_ms=1))
        await asyncio.sleep(0.01)
        closing = asyncio.create_task(store.aclose())
        await asyncio.sleep(0.01)
        leave.set()
        await closing
        assert await running == "done"
        with pytest.raises(StoreClosedError):
            await waiting
        for use in (store.current_lease, store.check_schema, store.aclose):
            if use == store.aclose:
                await store.aclose()  # closing twice is harmless
            else:
                with pytest.raises(StoreClosedError):
                    await use()
        with pytest.raises(StoreClosedError):
            await store.transact(claim)

    asyncio.run(main())
    assert [row[1] for row in all_rows(path)["session_execution_leases"]] == ["ann"]


def test_it_outlives_its_event_loop(path: Path) -> None:
    store = AsyncSessionStore.open(path, session_id="s")
    for expected in (1, 2, 3):
        lease = asyncio.run(store.claim_lease(owner_id="ann", ttl_ms=0))
        assert isinstance(lease, SessionLease)
        assert lease.fencing_token == expected
    asyncio.run(store.aclose())


@pytest.mark.posix("forks")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # that is the test
def test_a_forked_child_starts_threads_of_its_own(path: Path) -> None:
    store = AsyncSessionStore.open(path, session_id="s")
    asyncio.run(store.claim_lease(owner_id="ann", ttl_ms=0))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            lease = asyncio.run(store.claim_lease(owner_id="ann", ttl_ms=0))
            code = 0 if isinstance(lease, SessionLease) and lease.fencing_token == 2 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    asyncio.run(store.aclose())
    with SessionStore.open(path, session_id="s") as check:
        lease = check.claim_lease(owner_id="ann", ttl_ms=1)
        assert isinstance(lease, SessionLease)
        assert lease.fencing_token == 3


@pytest.mark.canonical("another program has the lock of a file")
def test_a_failed_opening_is_no_closing(path: Path) -> None:
    """What was busy may be opened again, by the same store."""
    path.touch()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    async def main() -> None:
        store = AsyncSessionStore.open(path, session_id="s", busy_timeout_ms=30)
        with pytest.raises(StoreBusyError):
            await store
        with pytest.raises(StoreBusyError):
            async with store:
                pass
        other.execute("ROLLBACK")
        async with store:
            assert await store.load_head() is None

    try:
        asyncio.run(main())
    finally:
        other.close()


def test_k_group_3_who_is_cancelled_as_it_enters_a_store_leaves_it_to_the_others(
    path: Path,
) -> None:
    async def main() -> None:
        store = AsyncSessionStore.open(path, session_id="s")

        async def enter() -> object:
            await store
            return await store.load_head()

        first, second = asyncio.create_task(enter()), asyncio.create_task(enter())
        await asyncio.sleep(0)
        first.cancel()
        ended = await asyncio.gather(first, second, return_exceptions=True)
        assert isinstance(ended[0], asyncio.CancelledError)
        assert ended[1] is None
        # And alone, nothing is left open, and whoever comes next opens it.
        alone = AsyncSessionStore.open(path, session_id="s")
        entering = asyncio.create_task(alone.__aenter__())
        await asyncio.sleep(0)
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entering
        assert await alone.load_head() is None
        await alone.aclose()
        await store.aclose()

    asyncio.run(main())


@pytest.mark.posix("forks")
def test_k_open_5_a_child_opens_what_a_thread_of_its_parent_was_opening(path: Path) -> None:
    """The locks of that opening are the parent's, and nobody would free them in the child."""
    stores: list[Any] = [
        AsyncSessionStore.open(path, session_id="s"),
        AsyncDeployment.open(path.parent / "all"),
    ]
    opening, forked = threading.Event(), threading.Event()

    def hold() -> None:
        with stores[0]._opening, stores[1]._opening:
            opening.set()
            assert forked.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert opening.wait(60)
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        # A new thread may have the number of the one that is gone, and a reentrant lock would let it in.
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        for each in stores:
            asyncio.run(_enter(each))
        os._exit(7)
    forked.set()
    holder.join()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7


async def _enter(store: AsyncSessionStore | AsyncDeployment) -> None:
    await store


@pytest.mark.parametrize("what", ["store", "deployment"])
def test_k_open_11_nothing_is_open_once_it_was_closed_as_it_was_opened(
    tmp_path: Path, what: str
) -> None:
    """Who removes the file then does not find it again."""

    async def main() -> None:
        for turn in range(40):
            folder = tmp_path / str(turn)
            folder.mkdir()
            opening: Any = (
                AsyncSessionStore.open(folder / "a.db", session_id="s")
                if what == "store"
                else AsyncDeployment.open(f"sqlite:///{folder / 'a.db'}")
            )
            entering = asyncio.ensure_future(opening.__aenter__())
            for _ in range(turn % 20 + 1):
                await asyncio.sleep(0)
            await opening.aclose()
            for each in folder.iterdir():
                each.unlink()
            await asyncio.gather(entering, return_exceptions=True)
            await asyncio.sleep(0.01)
            assert list(folder.iterdir()) == []

    asyncio.run(main())


def test_k_open_14_a_deployment_of_nothing(tmp_path: Path) -> None:
    given: list[Any] = [None, 5]
    for bad in given:
        with pytest.raises(InvalidRecordError, match="root"):
            AsyncDeployment.open(bad)
    with pytest.raises(StoreClosedError, match=str(tmp_path)):
        _ = AsyncDeployment.open(tmp_path).root


@pytest.mark.sqlite("another process has the file")
def test_k_open_12_tasks_that_wait_for_one_opening_take_one_thread(tmp_path: Path) -> None:
    """Or forty that use a store first keep everybody from opening and closing anything."""

    async def main() -> list[Any]:
        with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as other:
            other.execute("PRAGMA journal_mode=WAL")
            other.execute("BEGIN IMMEDIATE")
            store = AsyncSessionStore.open(tmp_path / "a.db", session_id="s")
            before = CHORES._unserved
            tasks = [asyncio.create_task(store.work_depth()) for _ in range(40)]
            while CHORES._unserved == before:
                await asyncio.sleep(0)
            await asyncio.sleep(0.05)
            assert CHORES._unserved == before + 1
            tasks[0].cancel()  # who opens it; another one goes on
            tasks[7].cancel()
            await asyncio.sleep(0.05)
            async with AsyncSessionStore.open(tmp_path / "b.db", session_id="s") as quick:
                await quick.enqueue_work(NewWork([1]))
            other.execute("ROLLBACK")
        found = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
        await store.aclose()
        return found

    found = asyncio.run(main())
    cancelled = [each for each in found if isinstance(each, asyncio.CancelledError)]
    assert len(cancelled) == 2
    assert {each.batches for each in found if each not in cancelled} == {0}


@pytest.mark.sqlite("a folder stands at its path")
def test_k_open_4_what_can_not_be_opened_is_everybodys_error(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()

    async def main() -> list[Any]:
        store = AsyncSessionStore.open(tmp_path / "folder", session_id="s")
        tasks = [asyncio.create_task(store.work_depth()) for _ in range(3)]
        return await asyncio.gather(*tasks, return_exceptions=True)

    found = asyncio.run(main())
    assert [type(each) for each in found] == [StoreOpenError] * 3
    assert len({id(each) for each in found}) == 3
