"""K-TX-14: a Tx on an application's own AsyncConnection or AsyncSession, on aiosqlite."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import aiosqlite
import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Text, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import registry
from sqlalchemy.pool import AsyncAdaptedQueuePool

from lash_store import LeaseHeld, NewWork, SessionStore, SessionTx, configure, create_tables
from lash_store.errors import NotConfiguredError, StoreBusyError, TransactionEndedError
from lash_store.process.tx import ProcessTx
from lash_store.session.tables import queued_work_batches

pytestmark = pytest.mark.canonical("opens both layouts by itself")

mine = MetaData()
notes = Table("notes", mine, Column("id", Integer, primary_key=True), Column("text", Text))
mapping = registry(metadata=mine)


class Note:
    def __init__(self, text: str) -> None:
        self.text = text


mapping.map_imperatively(Note, notes)


@asynccontextmanager
async def engine_on(path: Path, **options: Any) -> AsyncIterator[AsyncEngine]:
    engine = configure(create_async_engine(f"sqlite+aiosqlite:///{path}"), **options)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(mine.create_all)
        yield engine
    finally:
        await engine.dispose()


def run(test: Callable[[AsyncEngine], Awaitable[None]], path: Path, **options: Any) -> None:
    async def main() -> None:
        async with engine_on(path, **options) as engine:
            await test(engine)

    asyncio.run(main())


def texts(path: Path) -> list[str]:
    with (
        SessionStore.open(f"sqlite:///{path}", session_id="s") as store,
        store.read() as tx,
    ):
        return list(tx.connection.execute(select(notes.c.text)).scalars())


def depth(path: Path) -> int:
    with SessionStore.open(f"sqlite:///{path}", session_id="s") as store:
        return store.work_depth().batches


@pytest.mark.parametrize("layout", ["shared", "file"])
def test_k_tx_14_on_an_async_connection(path: Path, layout: str) -> None:
    if layout == "file":
        SessionStore.open(path, session_id="s").close()

    async def test(engine: AsyncEngine) -> None:
        async with engine.begin() as connection:
            tx = SessionTx.on(connection, session_id="s")
            lease = tx.claim_lease(owner_id="ann", ttl_ms=60_000)
            assert not isinstance(lease, LeaseHeld)
            tx.enqueue_work(NewWork([1]))
            await connection.execute(notes.insert().values(text="x"))
            fenced = notes.update().where(lease.fence.holds(tx)).values(text="fenced")
            assert (await connection.execute(fenced)).rowcount == 1
            found = await connection.execute(select(queued_work_batches.c.session_id))
            assert found.scalars().all() == ["s"]
            if layout == "shared":
                assert ProcessTx.beside(tx).list_processes() == []
        with pytest.raises(TransactionEndedError):
            tx.work_depth()
        with pytest.raises(KeyError):
            async with engine.begin() as connection:
                SessionTx.on(connection, session_id="s").enqueue_work(NewWork([2]))
                await connection.execute(notes.insert().values(text="undone"))
                raise KeyError

    run(test, path)
    where = path if layout == "file" else f"sqlite:///{path}"
    with SessionStore.open(where, session_id="s") as store, store.read() as tx:
        assert tx.work_depth().batches == 1
        assert tx.connection.execute(select(notes.c.text)).scalars().all() == ["fenced"]


def test_k_tx_14_on_an_async_session(path: Path) -> None:
    async def test(engine: AsyncEngine) -> None:
        async with AsyncSession(engine) as orm, orm.begin():
            with pytest.raises(NotConfiguredError, match=r"await session\.connection"):
                SessionTx.on(orm, session_id="s")
            await orm.connection()
            tx = SessionTx.on(orm, session_id="s")
            tx.enqueue_work(NewWork([1]))
            orm.add(Note("kept"))
        async with AsyncSession(engine) as orm:
            await orm.connection()
            SessionTx.on(orm, session_id="s").enqueue_work(NewWork([2]))
            orm.add(Note("undone"))
            await orm.flush()
            await orm.rollback()

    run(test, path)
    assert texts(path) == ["kept"]
    assert depth(path) == 1


def test_k_tx_14_an_async_session_that_has_not_begun_costs_no_connection(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(engine: AsyncEngine) -> None:
        async with engine.begin():
            pass  # from now on the pool has one
        async with AsyncSession(engine) as orm:
            with pytest.raises(NotConfiguredError, match=r"await session\.connection"):
                SessionTx.on(orm, session_id="s")

    run(test, path)
    assert caplog.records == []


def test_k_tx_14_waiting_for_the_lock_does_not_stop_the_loop(path: Path) -> None:
    async def test(engine: AsyncEngine) -> None:
        SessionStore.open(f"sqlite:///{path}", session_id="s", adopt=True).close()
        with SessionStore.open(f"sqlite:///{path}", session_id="s") as store:
            begun = asyncio.Event()

            async def write() -> None:
                begun.set()
                async with engine.begin() as connection:
                    SessionTx.on(connection, session_id="s").enqueue_work(NewWork([1]))

            with store.begin():
                writing = asyncio.create_task(write())
                await begun.wait()
                longest, last = 0.0, monotonic()
                for _ in range(20):
                    await asyncio.sleep(0.01)
                    longest, last = max(longest, monotonic() - last), monotonic()
                assert not writing.done()
                assert longest < 1  # while a wait in this thread would be for good
            await writing
            assert store.work_depth().batches == 1

    run(test, path)


def test_k_tx_14_a_lock_that_is_not_to_be_had(path: Path) -> None:
    async def test(engine: AsyncEngine) -> None:
        url = f"sqlite:///{path}"
        with (
            SessionStore.open(url, session_id="s", adopt=True) as store,
            store.begin(),
            pytest.raises(StoreBusyError),
        ):
            async with engine.begin():
                pass
        async with engine.begin() as connection:
            SessionTx.on(connection, session_id="s").enqueue_work(NewWork([1]))

    run(test, path, busy_timeout_ms=20)
    assert depth(path) == 1


def test_k_tx_14_snapshots_and_tables_in_a_migration(path: Path) -> None:
    async def test(engine: AsyncEngine) -> None:
        writing = engine.execution_options(lash_store_write=True)
        async with writing.begin() as connection:
            await connection.run_sync(create_tables)
            SessionTx.on(connection, session_id="s").enqueue_work(NewWork([1]))
        async with engine.connect() as connection, connection.begin():
            tx = SessionTx.on(connection, session_id="s")
            assert tx.work_depth().batches == 1
            async with writing.begin() as second:  # a snapshot keeps nobody from writing
                SessionTx.on(second, session_id="s").enqueue_work(NewWork([2]))
            assert tx.work_depth().batches == 1

    async def main() -> None:
        engine = configure(create_async_engine(f"sqlite+aiosqlite:///{path}"), begin="read")
        await test(engine)
        await engine.dispose()

    asyncio.run(main())
    assert depth(path) == 2


def test_k_tx_14_what_was_connected_before_is_refused(path: Path) -> None:
    async def main() -> None:
        engine = create_async_engine(
            f"sqlite+aiosqlite:///{path}",
            poolclass=AsyncAdaptedQueuePool,
            connect_args={"check_same_thread": True},
        )
        async with engine.begin() as connection:
            await connection.run_sync(mine.create_all)
        configure(engine)
        async with engine.begin() as connection:
            with pytest.raises(NotConfiguredError, match="before its engine was configured"):
                SessionTx.on(connection, session_id="s")
        await engine.dispose()

    asyncio.run(main())


def test_k_tx_14_no_other_async_connection_is_taken(path: Path) -> None:
    async def main() -> None:
        engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
        async with engine.begin() as connection:
            with pytest.raises(NotConfiguredError):
                SessionTx.on(connection, session_id="s")
        closed: AsyncConnection = configure(engine).connect()
        with pytest.raises(NotConfiguredError):
            SessionTx.on(closed, session_id="s")
        await engine.dispose()

    asyncio.run(main())


def test_what_is_used_of_aiosqlite_is_there() -> None:
    assert callable(aiosqlite.Connection._execute)
    assert isinstance(aiosqlite.Connection._conn, property)
