"""Stores of one file in one process: handles on one open database, each with its own rights."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, MetaData, Table, Text, select

from lash_store import (
    AsyncSessionStore,
    LeaseHeld,
    NewWork,
    ProcessRegistry,
    SessionDirectory,
    SessionLease,
    SessionStore,
)
from lash_store._backends.sqlite import connections, fairness, forking
from lash_store._backends.sqlite.database import OpenDatabase
from lash_store.errors import (
    LashStoreError,
    LeaseLostError,
    NestedTransactionError,
    ReadOnlyStoreError,
    SchemaVersionError,
    StoreBusyError,
    StoreClosedError,
    StoreOpenError,
    ThreadError,
)
from lash_store.schemas import OwnTables, Trigger
from lash_store.session.tables import graph_nodes
from lash_store.session.tx import SessionTx
from lash_store.testing import ManualClock, SequentialIds, run_as_group
from tests.support.databases import all_rows, apart, database_of, run_script
from tests.support.turns import eventually, eventually_in_loop


def wal_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def in_thread(work: Callable[[], Any]) -> Any:
    """Run `work` in a thread of its own; return what it gives, or the error that it raises."""
    given: list[Any] = []

    def run() -> None:
        try:
            given.append(work())
        except BaseException as error:  # noqa: BLE001 # reason: the test looks at it
            given.append(error)

    thread = threading.Thread(target=run, name="second")
    thread.start()
    thread.join(30)
    assert given, "the thread hangs"
    return given[0]


# One open database.


def test_k_open_11_stores_of_one_file_share_one_database_and_one_writer(path: Path) -> None:
    async def main() -> None:
        one = SessionStore.open(path, session_id="s")
        two = SessionStore.open(str(path), session_id="t")
        reader = SessionStore.open(path, session_id="s", read_only=True)
        late = AsyncSessionStore.open(path, session_id="u")
        on_it = AsyncSessionStore.open(one, session_id="v")
        await late.claim_lease(owner_id="ann", ttl_ms=60_000)
        await on_it.claim_lease(owner_id="bob", ttl_ms=60_000)
        stores: list[Any] = [one, two, reader, await late._opened(), await on_it._opened()]
        assert len({id(database_of(store)) for store in stores}) == 1
        for store in stores[:2]:
            store.claim_lease(owner_id="cid", ttl_ms=60_000)
        connections = database_of(one).connections
        assert connections.writer is not None
        writing = [each for each in connections.all if each not in connections.readers()]
        assert writing == [connections.writer]
        await on_it.aclose()
        await late.aclose()
        for store in (reader, two, one):
            store.close()

    asyncio.run(main())
    assert [row[0] for row in all_rows(path)["session_execution_leases"]] == ["s", "t", "u", "v"]


@pytest.mark.sqlite("the writer of a file")
def test_k_open_11_a_second_handle_leaves_it_to_who_writes_to_open_the_writer(path: Path) -> None:
    """It has no turn: who has it may be opening one, and would write on the other."""
    with SessionStore.open(path, session_id="s") as one:
        one.put_blob(b"x")
        database = database_of(one)
        assert database.close_if_idle()
        with SessionStore.open(path, session_id="s") as two:
            assert database_of(two) is database
            assert database.connections.writer is None
            two.put_blob(b"y")
            one.put_blob(b"z")
        writers = [each for each in database.connections.all if each is database.connections.writer]
        assert len(database.connections.readers()) == len(database.connections.all) - len(writers)
        assert len(writers) == 1


@pytest.mark.sqlite("tables of an application's own")
def test_k_open_11_what_is_closed_meanwhile_is_made_for_who_brings_it(path: Path) -> None:
    """The first store is opened again as it was, and the second one's table is made then."""
    seen = Table("seen", MetaData(), Column("node_id", Text))
    own = OwnTables("seen", 1, seen.metadata)
    SessionStore.open(path, session_id="s").close()
    with SessionStore.open(path, session_id="s", create=False) as one:
        one.put_blob(b"x")
        assert database_of(one).close_if_idle()
        told = Trigger("told", graph_nodes, "AFTER INSERT", "INSERT INTO seen VALUES (new.node_id)")
        with SessionStore.open(path, session_id="s", tables=[own], extras=[told]) as two:
            two.put_blob(b"y")
            one.put_blob(b"z")
            with two.begin() as tx:
                assert tx.connection.execute(select(seen)).all() == []
            assert database_of(one).close_if_idle()
            one.put_blob(b"1")
            two.put_blob(b"2")


@pytest.mark.posix("forks")
@pytest.mark.sqlite("the connections of a file")
def test_k_open_5_a_fork_beside_who_opens_closes_nothing_of_that(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was just opened to be written by is noted as that a moment later."""
    opens, forked = threading.Event(), threading.Event()
    open_writer = connections.open_writer  # type: ignore[attr-defined] # reason: it is held up here

    def slowly(*given: Any, **options: Any) -> Any:
        result = open_writer(*given, **options)
        opens.set()
        forked.wait(30)
        return result

    monkeypatch.setattr(connections, "open_writer", slowly)
    monkeypatch.setattr(forking, "FORK_WAIT_S", 0.0)
    stores = list[SessionStore]()
    thread = threading.Thread(target=lambda: stores.append(SessionStore.open(path, session_id="s")))
    thread.start()
    assert opens.wait(30)
    forking._prepare_fork()
    forking._after_fork_in_parent()
    forked.set()
    thread.join()
    with stores[0] as store:
        assert store.put_blob(b"x") == store.put_blob(b"x")


@pytest.mark.sqlite("the connections of a file")
def test_k_open_12_what_was_just_opened_is_not_what_was_idle_longest(path: Path) -> None:
    with SessionStore.open(path, session_id="s") as one:
        one.put_blob(b"x")
        with SessionStore.open(path.with_name("other.db"), session_id="s") as two:
            assert database_of(two).used_s > database_of(one).used_s
        with SessionStore.open(
            path.with_name("other.db"), session_id="s", read_only=True
        ) as reader:
            assert database_of(reader).used_s > database_of(one).used_s


def test_a_store_apart_shares_nothing(path: Path) -> None:
    with SessionStore.open(path, session_id="s") as one:
        other = apart(SessionStore.open, path, session_id="s")
        assert database_of(other) is not database_of(one)
        other.close()
        assert wal_of(path).exists()
        one.claim_lease(owner_id="ann", ttl_ms=1)


def test_threads_that_open_at_once_share_one_database(path: Path) -> None:
    ready = threading.Barrier(16)
    stores: list[SessionStore] = []

    def open_it() -> None:
        ready.wait()
        stores.append(SessionStore.open(path, session_id="s"))

    threads = [threading.Thread(target=open_it) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stores) == 16
    assert len({id(database_of(store)) for store in stores}) == 1
    for store in stores:
        store.close()
    assert not wal_of(path).exists()


def test_threads_that_open_and_close_at_once_never_find_a_closed_database(path: Path) -> None:
    failures: list[BaseException] = []

    def use() -> None:
        try:
            for _ in range(50):
                with SessionStore.open(path, session_id="s") as store:
                    store.enqueue_work(NewWork([1]))
        except BaseException as error:  # noqa: BLE001 # reason: the test shows it
            failures.append(error)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with SessionStore.open(path, session_id="s") as store:
        assert len(store.list_work()) == 200


# What is each handle's own.


def test_each_has_its_own_session_clock_and_ids(path: Path) -> None:
    early, late = ManualClock(1_000), ManualClock(9_000_000)
    with (
        SessionStore.open(path, session_id="s", clock=early, ids=SequentialIds("a")) as one,
        SessionStore.open(one, session_id="t", clock=late, ids=SequentialIds("b")) as two,
    ):
        mine = one.claim_lease(owner_id="ann", ttl_ms=60_000)
        yours = two.claim_lease(owner_id="ann", ttl_ms=60_000)
        assert isinstance(mine, SessionLease)
        assert isinstance(yours, SessionLease)
        assert (mine.fence.session_id, yours.fence.session_id) == ("s", "t")
        assert (mine.claimed_at_ms, yours.claimed_at_ms) == (1_000, 9_000_000)
        assert mine.fence.token.startswith("a")
        assert yours.fence.token.startswith("b")
        with two.begin() as tx:
            assert tx.now_ms == 9_000_000
        with one.read() as tx:
            assert tx.now_ms == 1_000


def test_each_has_its_own_budget(path: Path) -> None:
    """In one line, for one turn: each gives up when its own time is over."""
    with (
        SessionStore.open(path, session_id="s", busy_timeout_ms=30_000) as patient,
        SessionStore.open(path, session_id="s", busy_timeout_ms=0) as hasty,
        SessionStore.open(path, session_id="s", busy_timeout_ms=100) as short,
    ):
        waiting: list[Any] = []
        thread = threading.Thread(
            target=lambda: waiting.append(patient.claim_lease(owner_id="ann", ttl_ms=1))
        )
        with patient.begin():
            thread.start()
            refused = in_thread(lambda: short.claim_lease(owner_id="bob", ttl_ms=1))
            assert isinstance(refused, StoreBusyError)
            assert 100 <= refused.waited_ms < 5_000
            refused = in_thread(lambda: hasty.claim_lease(owner_id="bob", ttl_ms=1))
            assert isinstance(refused, StoreBusyError)
            assert waiting == []
        thread.join()
        assert isinstance(waiting[0], SessionLease)


def test_a_group_composed_by_hand_waits_no_longer_than_its_first_store(path: Path) -> None:
    with (
        SessionStore.open(path, session_id="s", busy_timeout_ms=50) as store,
        SessionStore.open(path, session_id="t") as other,
        other.begin(),
    ):
        refused = in_thread(lambda: run_as_group(store.collect_blobs))
        assert isinstance(refused, StoreBusyError), repr(refused)


def test_read_only_is_one_handles_own(path: Path) -> None:
    with (
        SessionStore.open(path, session_id="s") as writer,
        SessionStore.open(writer, session_id="s", read_only=True) as reader,
    ):
        lease = writer.claim_lease(owner_id="ann", ttl_ms=60_000)
        assert reader.current_lease() == lease
        for refused in (
            lambda: reader.claim_lease(owner_id="bob", ttl_ms=1),
            lambda: reader.begin().__enter__(),
            lambda: reader.transact(lambda tx: tx.put_blob(b"x"), repeatable=True),
        ):
            with pytest.raises(ReadOnlyStoreError):
                refused()
        with reader.read() as tx, pytest.raises(ReadOnlyStoreError):
            tx.put_blob(b"x")
        writer.put_blob(b"x")


def test_a_file_that_was_opened_for_reading_first_can_be_written_to_later(path: Path) -> None:
    SessionStore.open(path, session_id="s").close()
    with (
        SessionStore.open(path, session_id="s", read_only=True) as reader,
        SessionStore.open(path, session_id="s", synchronous="FULL") as writer,
    ):
        assert database_of(reader) is database_of(writer)
        writer.put_blob(b"x")
        with writer.begin() as tx:
            assert tx.connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
    assert not wal_of(path).exists()


@pytest.mark.posix("there is no queue")
def test_closing_one_leaves_the_others_and_the_last_closes_the_file(path: Path) -> None:
    one, two = (SessionStore.open(path, session_id="s") for _ in range(2))
    reader = SessionStore.open(path, session_id="s", read_only=True)
    one.close()
    one.close()
    with pytest.raises(StoreClosedError):
        one.current_lease()
    with pytest.raises(StoreClosedError):
        one.begin().__enter__()
    two.claim_lease(owner_id="ann", ttl_ms=60_000)
    two.close()
    assert isinstance(reader.current_lease(), SessionLease)
    assert wal_of(path).exists()
    reader.close()
    assert sorted(each.name for each in path.parent.iterdir()) == [
        path.name,
        f"{path.name}-queue",
    ]


def test_a_store_that_is_closed_ends_the_waits_of_its_own(path: Path) -> None:
    """Though its database stays open, for another store."""
    with SessionStore.open(path, session_id="s"):
        store = SessionStore.open(path, session_id="s")
        looked = threading.Event()
        ended: list[Any] = []

        def look(tx: SessionTx) -> None:
            looked.set()

        def wait() -> None:
            try:
                ended.append(store.wait_until(look, timeout_ms=20_000))
            except LashStoreError as error:
                ended.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        looked.wait()
        store.close()
        thread.join(5)
        assert [type(each) for each in ended] == [StoreClosedError]


def test_an_asyncio_store_that_is_closed_ends_the_waits_of_its_own(path: Path) -> None:
    async def main() -> None:
        async with AsyncSessionStore.open(path, session_id="s"):
            store = await AsyncSessionStore.open(path, session_id="s")
            looked = threading.Event()
            waiting = asyncio.create_task(
                store.wait_until(lambda _: looked.set(), timeout_ms=20_000)
            )
            while not looked.is_set():
                await asyncio.sleep(0.001)
            await store.aclose()
            with pytest.raises(StoreClosedError):
                await asyncio.wait_for(waiting, 5)

    asyncio.run(main())


@pytest.mark.parametrize("is_last", [True, False])
def test_aclose_finishes_what_runs_whether_it_is_the_last_or_not(path: Path, is_last: bool) -> None:
    async def main() -> None:
        other = await AsyncSessionStore.open(path, session_id="s")
        store = await AsyncSessionStore.open(path, session_id="s")
        entered, leave = threading.Event(), threading.Event()

        def work(tx: SessionTx) -> str:
            entered.set()
            leave.wait()
            tx.put_blob(b"x")
            return "done"

        if is_last:
            await other.aclose()
        running = asyncio.create_task(store.transact(work))
        while not entered.is_set():
            await asyncio.sleep(0.001)
        closing = asyncio.create_task(store.aclose())
        await asyncio.wait([closing], timeout=0.1)
        had_to_wait = not closing.done()
        leave.set()
        assert had_to_wait
        await closing
        assert await running == "done"
        await other.aclose()

    asyncio.run(main())


def test_k_open_11_another_durability_is_refused_with_both_named(path: Path) -> None:
    with SessionStore.open(path, session_id="s") as store:
        with pytest.raises(StoreOpenError, match=r"'NORMAL'.*'FULL'"):
            SessionStore.open(path, session_id="s", synchronous="FULL")
        with pytest.raises(StoreOpenError, match=r"'NORMAL'.*'FULL'"):
            SessionStore.open(store, session_id="s", synchronous="FULL")
        SessionStore.open(path, session_id="s", synchronous="FULL", read_only=True).close()
        store.put_blob(b"x")  # and who was refused has closed nothing
    with SessionStore.open(path, session_id="s", synchronous="FULL") as store:
        with pytest.raises(StoreOpenError, match=r"'FULL'.*'NORMAL'"):
            SessionStore.open(path, session_id="s")
        store.put_blob(b"x")


@pytest.mark.canonical("one file, in which one store sees what another wrote of its session")
def test_another_kind_of_store_is_refused_and_closes_nothing(path: Path) -> None:
    with SessionStore.open(path, session_id="s") as store:
        with pytest.raises(SchemaVersionError):
            ProcessRegistry.open(path)
        with pytest.raises(SchemaVersionError):
            ProcessRegistry.open(store)
        store.put_blob(b"x")
    with SessionStore.open(None, session_id="s") as store:
        with pytest.raises(SchemaVersionError):
            ProcessRegistry.open(store)
        store.put_blob(b"x")


# Stores on stores.


@pytest.mark.canonical("one file, in which one store sees what another wrote of its session")
@pytest.mark.parametrize("in_memory", [False, True], ids=["file", "memory"])
def test_a_store_on_another_store(path: Path, in_memory: bool) -> None:
    async def main() -> None:
        first = SessionStore.open(None if in_memory else path, session_id="s")
        second = SessionStore.open(first, session_id="t")
        third = AsyncSessionStore.open(second, session_id="u")
        reader = SessionStore.open(first, session_id="s", read_only=True)
        await third.claim_lease(owner_id="ann", ttl_ms=60_000)
        assert isinstance(first.current_lease(session_id="u"), SessionLease)
        first.close()
        second.claim_lease(owner_id="bob", ttl_ms=60_000)
        assert isinstance(await third.current_lease(session_id="t"), SessionLease)
        assert isinstance(reader.current_lease(session_id="t"), SessionLease)
        with pytest.raises(ReadOnlyStoreError):
            reader.put_blob(b"x")
        second.close()
        await third.aclose()
        reader.close()
        with pytest.raises(StoreClosedError):
            SessionStore.open(reader, session_id="s")
        assert database_of(first).closed

    asyncio.run(main())


@pytest.mark.parametrize("in_memory", [False, True], ids=["file", "memory"])
def test_opening_on_a_store_while_another_thread_is_inside_it(path: Path, in_memory: bool) -> None:
    with SessionStore.open(None if in_memory else path, session_id="s") as store:
        with store.begin() as tx:
            tx.put_blob(b"x")
            opened = in_thread(lambda: SessionStore.open(store, session_id="t"))
            assert isinstance(opened, SessionStore), repr(opened)
            tx.put_blob(b"y")
        opened.claim_lease(owner_id="ann", ttl_ms=60_000)
        opened.close()


def test_a_profile_in_memory_is_the_same_on_a_store() -> None:
    with (
        SessionStore.open(None, session_id="s") as store,
        SessionStore.open(store, session_id="t") as other,
    ):
        contexts: list[Any] = [store._context, other._context]
        assert [each.profile for each in contexts] == ["low_latency"] * 2


@pytest.mark.parametrize("in_memory", [False, True], ids=["file", "memory"])
def test_opening_while_another_handles_block_is_open_in_this_thread(
    path: Path, in_memory: bool
) -> None:
    with SessionStore.open(None if in_memory else path, session_id="s") as store:
        with store.begin() as tx:
            lease = tx.claim_lease(owner_id="ann", ttl_ms=60_000)
            where = store if in_memory else path
            other = SessionStore.open(where, session_id="t")
            with pytest.raises(NestedTransactionError, match="`tx`"):
                other.claim_lease(owner_id="ann", ttl_ms=1)
            if not in_memory:
                SessionStore.open(path, session_id="t", read_only=True).close()
            other.close()
            assert tx.current_lease() == lease
        assert store.current_lease() == lease


# Dropped without a close.


def test_dropped_stores_do_not_keep_the_file(path: Path) -> None:
    store = SessionStore.open(path, session_id="s")
    other = SessionStore.open(path, session_id="t")
    store.claim_lease(owner_id="ann", ttl_ms=1)
    database = database_of(store)
    with other.read():
        pass
    del other
    gc.collect()
    assert [handle is store._handle for handle in database.handles] == [True]
    store.claim_lease(owner_id="ann", ttl_ms=1)
    del store, database
    gc.collect()
    with SessionStore.open(path, session_id="s", synchronous="FULL") as anew:
        assert isinstance(anew.claim_lease(owner_id="ann", ttl_ms=1), SessionLease | LeaseHeld)
    # The dropped ones are closed by a thread of the library.
    eventually(lambda: not wal_of(path).exists())


def test_a_dropped_store_does_not_keep_the_last_from_closing_the_file(path: Path) -> None:
    dropped = SessionStore.open(path, session_id="s")
    store = SessionStore.open(path, session_id="s")
    store.put_blob(b"x")
    del dropped
    gc.collect()
    store.close()
    assert not wal_of(path).exists()


# Calls inside this thread's own transaction.


NESTED: dict[str, Callable[[SessionStore], Any]] = {
    "a write": lambda store: store.claim_lease(owner_id="ann", ttl_ms=1),
    "a read": lambda store: store.current_lease(),
    "begin": lambda store: store.begin().__enter__(),
    "a snapshot": lambda store: store.read().__enter__(),
    "transact": lambda store: store.transact(lambda _: None),
    "a repeatable transact": lambda store: store.transact(lambda _: None, repeatable=True),
    "wait_until": lambda store: store.wait_until(lambda _: 1),
    "check_schema": lambda store: store.check_schema(),
    "a group": lambda store: run_as_group(store.collect_blobs),
}


@pytest.mark.parametrize("in_memory", [False, True], ids=["file", "memory"])
@pytest.mark.parametrize("call", NESTED.values(), ids=NESTED)
def test_k_tx_12_a_call_inside_this_threads_own_block_names_the_tx(
    path: Path, call: Callable[[SessionStore], Any], in_memory: bool
) -> None:
    with (
        SessionStore.open(None if in_memory else path, session_id="s") as store,
        SessionStore.open(store, session_id="t") as other,
    ):
        with store.begin() as tx:
            tx.claim_lease(owner_id="ann", ttl_ms=60_000)
            for each in (store, other):
                with pytest.raises(NestedTransactionError, match="`tx`"):
                    call(each)
        assert isinstance(store.current_lease(), SessionLease)
        assert database_of(store).writer.turns.first() is None


ASYNC_NESTED: dict[str, Callable[[AsyncSessionStore], Any]] = {
    "a write": lambda store: store.claim_lease(owner_id="ann", ttl_ms=1),
    "a read": lambda store: store.current_lease(),
    "transact": lambda store: store.transact(lambda _: None),
    "read": lambda store: store.read(lambda _: None),
    "wait_until": lambda store: store.wait_until(lambda _: 1),
    "check_schema": lambda store: store.check_schema(),
}


@pytest.mark.canonical("one file, in which one store sees what another wrote of its session")
@pytest.mark.parametrize("in_memory", [False, True], ids=["file", "memory"])
@pytest.mark.parametrize("is_open", [True, False], ids=["open", "lazily"])
@pytest.mark.parametrize("call", ASYNC_NESTED.values(), ids=ASYNC_NESTED)
def test_k_tx_12_a_call_that_is_awaited_inside_a_block_names_the_tx(
    path: Path, call: Callable[[AsyncSessionStore], Any], in_memory: bool, is_open: bool
) -> None:
    async def main() -> None:
        store = SessionStore.open(
            None if in_memory else path, session_id="s", busy_timeout_ms=2_000
        )
        other = AsyncSessionStore.open(store, session_id="t", busy_timeout_ms=2_000)
        if is_open:
            await other
        with store.begin() as tx:
            tx.claim_lease(owner_id="ann", ttl_ms=60_000)
            with pytest.raises(NestedTransactionError, match="`tx`"):
                await call(other)
        assert isinstance(await other.current_lease(session_id="s"), SessionLease)
        await other.aclose()
        store.close()

    asyncio.run(main())


def test_a_snapshot_of_a_file_keeps_nobody_from_writing(path: Path) -> None:
    with SessionStore.open(path, session_id="s") as store, store.read() as tx:
        assert tx.current_lease() is None
        store.claim_lease(owner_id="ann", ttl_ms=60_000)
        assert tx.current_lease() is None
        assert isinstance(store.current_lease(), SessionLease)


def test_many_consumers_works_in_memory_wait_for_no_thread_that_waits_for_them() -> None:
    """Reads and transactions of an event loop, in one line, on the few threads of the library."""

    async def main() -> None:
        async with AsyncSessionStore.open(None, session_id="s", busy_timeout_ms=5_000) as store:
            calls: list[Any] = []
            for _ in range(60):
                calls.append(store.transact(lambda tx: tx.put_blob(b"x")))
                calls.append(store.read(lambda tx: tx.current_lease()))
                calls.append(store.check_schema())
            await asyncio.wait_for(asyncio.gather(*calls), 20)

    asyncio.run(main())


# Threads.


def of_thread(name: str, ident: int | None) -> str:
    return f"{name!r} ({ident})"


USES: dict[str, Callable[[SessionTx, Any, Any], Any]] = {
    "a writing operation": lambda tx, *_: tx.claim_lease(owner_id="bob", ttl_ms=1),
    "a reading operation": lambda tx, *_: tx.current_lease(),
    "the cursor of the Tx": lambda tx, *_: tx.cursor.execute("SELECT 1"),
    "the connection, anew": lambda tx, *_: tx.connection.exec_driver_sql("SELECT 1").scalar(),
    "a result": lambda _, result, __: result.fetchone(),
    "all of a result": lambda _, result, __: result.fetchall(),
    "a cursor": lambda _, __, cursor: cursor.execute("SELECT 1"),
    "a cursor's next row": lambda _, __, cursor: next(cursor),
    "a cursor's rows": lambda _, __, cursor: cursor.fetchmany(2),
}


@pytest.mark.parametrize("writes", [True, False], ids=["begin", "read"])
@pytest.mark.parametrize("in_memory", [False, True], ids=["file", "memory"])
@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_k_tx_9_a_transaction_stays_in_its_thread(
    path: Path, use: Callable[[SessionTx, Any, Any], Any], in_memory: bool, writes: bool
) -> None:
    values = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 1000)"
    with SessionStore.open(None if in_memory else path, session_id="s") as store:
        store.claim_lease(owner_id="ann", ttl_ms=60_000)
        before = store.current_lease()
        with store.begin() if writes else store.read() as tx:
            if writes:
                tx.put_blob(b"mine")
            connection = tx.connection
            use_is_of_result = use in (USES["a result"], USES["all of a result"])
            for _ in range(100):
                result = connection.exec_driver_sql(f"{values} SELECT i FROM n")
                assert result.fetchone() == (1,)
                raw: Any = connection.connection.dbapi_connection
                cursor = raw.cursor().execute(f"{values} SELECT i FROM n")
                refused = in_thread(lambda: use(tx, result, cursor))  # noqa: B023
                assert isinstance(refused, ThreadError), repr(refused)
                assert refused.owner == threading.get_ident() != refused.user
                assert of_thread("MainThread", refused.owner) in str(refused)
                assert str(refused.user) in str(refused)
                if not use_is_of_result:
                    assert result.fetchone() == (2,)  # SQLAlchemy closes one whose fetch fails
                cursor.close()
                result.close()
            assert tx.current_lease() == before
        assert store.current_lease() == before
        with store.read() as tx:
            count = tx.connection.exec_driver_sql("SELECT count(*) FROM blobs").scalar()
        assert count == int(writes)


@contextmanager
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.sqlite("its files")
def test_k_open_5_a_store_that_is_dropped_leaves_nothing_open(path: Path) -> None:
    with without_collector():
        store = SessionStore.open(path, session_id="s")
        store.put_blob(b"x")
        assert wal_of(path).exists()
        del store
        # Which the last connection empties into the file.
        eventually(lambda: not wal_of(path).exists())

        one = SessionStore.open(path, session_id="s")
        two = SessionStore.open(path, session_id="s")
        one.put_blob(b"y")
        del one
        two.put_blob(b"z")
        with two.begin() as tx:
            del two
            tx.put_blob(b"in a block")
            assert wal_of(path).exists()
        del tx
    with SessionStore.open(path, session_id="s") as store, store.read() as tx:
        found = tx.connection.exec_driver_sql("SELECT count(*) FROM blobs").scalar()
        assert found == 4


@pytest.mark.sqlite("its files")
def test_k_open_5_what_was_called_does_not_keep_a_dropped_store(path: Path) -> None:
    async def use() -> None:
        store = await AsyncSessionStore.open(path, session_id="s")
        await asyncio.gather(*(store.enqueue_work(NewWork([n])) for n in range(8)))
        await store.wait_until(lambda _: None, timeout_ms=1)
        async with store.hold(owner_id="ann", ttl_ms=60_000) as held:
            held.check()
        with pytest.raises(LeaseLostError):
            await store.renew_lease(held.fence, ttl_ms=1)
        with pytest.raises(ZeroDivisionError):
            await store.read(lambda _: 1 / 0)
        assert len(await store.list_work()) == 8
        assert wal_of(path).exists()

    async def main() -> None:
        await use()
        # Whoever has told the loop may still be about it, on a thread of the library's.
        await eventually_in_loop(lambda: not wal_of(path).exists())

    with without_collector():
        asyncio.run(main())
        store = SessionStore.open(path, session_id="s")
        store.wait_until(lambda _: None, timeout_ms=1)
        with store.hold(owner_id="ann", ttl_ms=60_000) as held:
            store.put_blob(b"x")
        assert wal_of(path).exists()
        del store, held
        eventually(lambda: not wal_of(path).exists())


@pytest.mark.sqlite("its lock")
def test_k_open_5_a_block_that_is_never_left_locks_nobody_out(path: Path) -> None:
    with without_collector():
        store = SessionStore.open(path, session_id="s")
        store.put_blob(b"x")
        block = store.begin()
        tx = block.__enter__()
        tx.put_blob(b"y")
        del store, block, tx
        eventually(lambda: not wal_of(path).exists())
        run_script(path, "BEGIN IMMEDIATE; ROLLBACK")
    with SessionStore.open(path, session_id="s") as store, store.read() as anew:
        found = anew.connection.exec_driver_sql("SELECT count(*) FROM blobs").scalar()
        assert found == 1


@pytest.mark.sqlite("its files")
def test_k_open_5_threads_that_went_together_do_not_keep_a_dropped_store(path: Path) -> None:
    def use() -> None:
        store = SessionStore.open(path, session_id="s")
        store.put_blob(b"one")
        run_as_group(partial(store.put_blob, b"two"), partial(store.put_blob, b"three"))

    with without_collector():
        use()
        eventually(lambda: not wal_of(path).exists())


@pytest.mark.sqlite("its connections")
def test_k_open_5_what_a_signal_handler_raises_is_not_lost_as_a_store_is_dropped(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed_in: list[threading.Thread] = []

    def noted(database: OpenDatabase) -> bool:
        closed_in.append(threading.current_thread())
        return close_if_idle(database)

    close_if_idle = OpenDatabase.close_if_idle
    monkeypatch.setattr(OpenDatabase, "close_if_idle", noted)
    store = SessionStore.open(path, session_id="s")
    store.put_blob(b"x")
    del store
    eventually(lambda: closed_in)
    # Where handlers run, and what they raise in a finalizer is lost.
    assert threading.main_thread() not in closed_in


@pytest.mark.sqlite("its system calls")
@pytest.mark.posix("reads the gate of its queue")
def test_k_tx_10_a_timeout_out_of_a_handler_is_no_system_calls_own(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def struck(*_: Any) -> Any:
        raise TimeoutError("deadline")

    with SessionStore.open(path, session_id="s") as store:
        store.put_blob(b"x")
        before = all_rows(path)
        for call in (lambda: store.put_blob(b"y"), store.current_lease):
            with monkeypatch.context() as patched, pytest.raises(TimeoutError, match="deadline"):
                patched.setattr(connections, "stat", struck)
                patched.setattr(os, "stat", struck)
                call()
        assert all_rows(path) == before
        for name in ("pread", "stat", "open"):
            with monkeypatch.context() as patched, pytest.raises(TimeoutError, match="deadline"):
                patched.setattr(os, name, struck)
                if name == "stat":  # asked for who may use a new one
                    Path(f"{path}-queue").unlink()
                fairness.WriteQueue(str(path)).may_try(time.monotonic())
        store.put_blob(b"z")


@pytest.mark.posix
@pytest.mark.sqlite("its queue")
def test_a_queue_that_the_collector_was_first_to_close_closes_no_other_file(path: Path) -> None:
    SessionStore.open(path, session_id="s").close()
    queue = fairness.WriteQueue(str(path))
    number = queue._descriptor
    queue.__del__()
    other = os.open(path.parent, os.O_RDONLY)
    assert other == number  # the system gives the lowest that is free
    queue.close()
    os.close(other)  # or it is closed already: EBADF


@pytest.mark.canonical("a folder of its own")
def test_k_open_5_what_was_dropped_just_now_can_be_deleted(path: Path) -> None:
    with SessionDirectory(path.parent / "sessions") as directory, without_collector():
        for number in range(40):
            store = directory.create(f"s{number}", model="m")
            store.enqueue_work(NewWork(["x" * 3_000]))
            del store
            assert directory.delete(f"s{number}")
