"""Transactions of a consumer's own on PostgreSQL, which a Tx joins (K-TX-8, K-TX-14)."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest
from sqlalchemy import (
    Column,
    Engine,
    Index,
    MetaData,
    Table,
    Text,
    create_engine,
    inspect,
    make_url,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

import lash_store
from lash_store import NewWork, ProcessRegistry, ProcessTx, SessionStore
from lash_store.errors import (
    InvalidRecordError,
    NotConfiguredError,
    ReadOnlyStoreError,
    SchemaVersionError,
    StorageError,
    StoreBusyError,
    TransactionEndedError,
)
from lash_store.process.tables import CLAIM_ORDER, WAKE_EVENTS, process_leases, processes
from lash_store.schemas import OwnTables, create_tables, stamp_tables
from lash_store.session.tables import queued_work_batches
from lash_store.session.tx import SessionTx
from lash_store.testing import as_another_process
from lash_store.trigger.tables import DELIVERIES_OF_SUBSCRIPTION
from tests.support.registries import lease_on, register
from tests.support.turns import PATIENCE_S

orders = Table("orders", MetaData(), Column("id", Text), Column("state", Text))


def test_k_tx_8_operations_and_statements_are_one_transaction(engine: Engine) -> None:
    with engine.begin() as connection:
        orders.metadata.create_all(connection)
        tx = SessionTx.on(connection, session_id="one")
        lease = tx.claim_lease(owner_id="ann", ttl_ms=60_000)
        fence = lease.fence  # type: ignore[union-attr] # reason: it is free
        connection.execute(orders.insert().values(id="1", state="new"))
        fenced = update(orders).values(state="done").where(fence.holds(tx))
        assert connection.execute(fenced).rowcount == 1
    with pytest.raises(ValueError, match="no"), engine.begin() as connection:
        SessionTx.on(connection, session_id="one").enqueue_work(NewWork([1]))
        connection.execute(orders.insert().values(id="2", state="new"))
        raise ValueError("no")
    with engine.begin() as connection:
        tx = SessionTx.on(connection, session_id="one")
        assert tx.work_depth().batches == 0
        assert connection.execute(orders.select()).all() == [("1", "done")]
        assert connection.execute(queued_work_batches.select()).all() == []
        assert ProcessTx.beside(tx).list_processes() == []
    with pytest.raises(TransactionEndedError):
        tx.work_depth()


def test_k_tx_14_an_orm_session_and_a_store_see_the_same(engine: Engine, own_url: str) -> None:
    with Session(engine) as orm:
        SessionTx.on(orm, session_id="one").enqueue_work(NewWork([1]))
        orm.commit()
    with SessionStore.open(own_url, session_id="one") as store:
        assert store.work_depth().batches == 1


def test_k_pg_3_a_snapshot_that_may_be_older_than_the_lock_is_refused(engine: Engine) -> None:
    for level in ("REPEATABLE READ", "SERIALIZABLE"):
        other = engine.execution_options(isolation_level=level)
        with other.begin() as connection, pytest.raises(NotConfiguredError, match=level):
            SessionTx.on(connection, session_id="one")


def test_k_pg_3_who_only_reads_has_to_read_one_state(engine: Engine) -> None:
    with engine.begin() as connection:
        SessionTx.on(connection, session_id="one").enqueue_work(NewWork([1]))
    reads = engine.execution_options(postgresql_readonly=True)
    with reads.begin() as connection, pytest.raises(NotConfiguredError, match="READ COMMITTED"):
        SessionTx.on(connection, session_id="one")
    for level in ("REPEATABLE READ", "SERIALIZABLE"):
        with reads.execution_options(isolation_level=level).begin() as connection:
            tx = SessionTx.on(connection, session_id="one")
            with engine.begin() as other:
                SessionTx.on(other, session_id="one").enqueue_work(NewWork([2]))
            seen = tx.work_depth().batches
            assert seen == tx.work_depth().batches
            with pytest.raises(ReadOnlyStoreError):
                tx.enqueue_work(NewWork([3]))
    with engine.begin() as connection:
        assert SessionTx.on(connection, session_id="one").work_depth().batches == 3


def test_views_of_one_engine_have_one_schema(own_url: str) -> None:
    """They share what was compiled: one tenant's statements would run on the other's rows."""
    base = create_engine(own_url)
    one = lash_store.configure(base.execution_options(tenant="a"), schema="one")
    with pytest.raises(NotConfiguredError, match=r"schema='two'.*schema='one'"):
        lash_store.configure(base.execution_options(tenant="b"), schema="two")
    assert lash_store.configure(one.execution_options(more=1), schema="one") is not one
    base.dispose()


def test_configuring_twice_changes_nothing(engine: Engine) -> None:
    lash_store.configure(engine, prefix="two_")  # the first time holds
    with engine.begin() as connection:
        SessionTx.on(connection, session_id="one").enqueue_work(NewWork([1]))
        assert len(connection.execute(select(queued_work_batches)).all()) == 1


def test_a_declared_snapshot_reads_and_refuses_writes(engine: Engine) -> None:
    reads = engine.execution_options(lash_store_read=True)
    # As of a SQLite database without its tables (K-GUARD-5).
    with (
        reads.begin() as connection,
        pytest.raises(SchemaVersionError, match="has no tables of a session store"),
    ):
        SessionTx.on(connection, session_id="one")
    with engine.begin() as connection:
        SessionTx.on(connection, session_id="one").enqueue_work(NewWork([1]))
    with reads.begin() as connection:
        tx = SessionTx.on(connection, session_id="one")
        assert tx.work_depth().batches == 1
        with pytest.raises(ReadOnlyStoreError, match=r"^'postgresql"):
            tx.enqueue_work(NewWork([2]))


def test_k_lock_1_who_joins_waits_for_the_session_and_no_longer_than_the_budget(
    engine: Engine, own_url: str
) -> None:
    with SessionStore.open(own_url, session_id="one") as store, store.begin():
        with engine.begin() as connection:
            SessionTx.on(connection, session_id="two").enqueue_work(NewWork([1]))
        with engine.begin() as connection, pytest.raises(StoreBusyError) as caught:
            SessionTx.on(connection, session_id="one")
    assert caught.value.waited_ms >= 200


def test_what_is_not_configured_is_refused(own_url: str, engine: Engine) -> None:
    plain = create_engine(own_url)
    with plain.begin() as connection, pytest.raises(NotConfiguredError, match="configure"):
        SessionTx.on(connection, session_id="one")
    plain.dispose()
    with pytest.raises(NotConfiguredError, match=r"postgresql\+psycopg"):
        lash_store.configure(create_engine("postgresql+psycopg2://x/y"))
    own: Any = OwnTables("mine", 1, MetaData())
    with pytest.raises(InvalidRecordError, match="migrations"):
        lash_store.configure(create_engine(own_url), tables=[own])
    with engine.begin() as connection, pytest.raises(NotConfiguredError, match="not versioned"):
        stamp_tables(connection, own)


def test_k_share_9_what_is_sqlites_alone_is_refused_wherever_it_is_said(
    own_url: str, engine: Engine
) -> None:
    own = OwnTables("mine", 1, MetaData())
    by_name = Index("by_name", processes.c.process_id)
    refusals: list[dict[str, Any]] = [{"tables": [own]}, {"extras": [by_name]}]
    for refused in refusals:
        with engine.begin() as connection, pytest.raises(InvalidRecordError, match="SQLite's"):
            create_tables(connection, "process", **refused)
        with pytest.raises(InvalidRecordError, match="SQLite's"):
            ProcessRegistry.open(own_url, **refused)
    with engine.connect() as connection:
        assert inspect(connection).get_table_names() == []


def test_k_share_9_what_a_kind_declares_itself_is_there(own_url: str) -> None:
    declared = [CLAIM_ORDER, WAKE_EVENTS, DELIVERIES_OF_SUBSCRIPTION]
    engine = lash_store.configure(create_engine(own_url), extras=declared)
    with engine.begin() as connection:
        create_tables(connection, "trigger", extras=declared)
        assert "lash_idx_trigger_deliveries_subscription" in {
            each["name"] for each in inspect(connection).get_indexes("lash_trigger_deliveries")
        }
    with ProcessRegistry.open(own_url, extras=declared) as registry:
        assert registry.claim_next(owner_id="ann", ttl_ms=1) is None
    engine.dispose()


def test_a_migration_makes_our_tables_and_undoes_them(
    own_url: str, place: str, admin: psycopg.Connection[Any]
) -> None:
    engine = create_engine(own_url)
    count = "SELECT count(*) FROM pg_tables WHERE schemaname = %s"
    with engine.connect() as connection:
        create_tables(connection, "session")
        connection.rollback()
    assert admin.execute(count, [place]).fetchone() == (0,)
    with engine.begin() as connection:
        create_tables(connection)
        create_tables(connection)  # which are there, and as declared
    assert admin.execute(count, [place]).fetchone() == (22,)
    with SessionStore.open(own_url, session_id="one", create=False) as store:
        store.enqueue_work(NewWork([1]))
    engine.dispose()


def test_k_tx_14_asyncio_joins_as_well(own_url: str) -> None:
    async def main() -> None:
        engine = lash_store.configure(create_async_engine(own_url), busy_timeout_ms=200)
        async with engine.begin() as connection:
            tx = SessionTx.on(connection, session_id="one")
            tx.enqueue_work(NewWork([1]))
            await connection.execute(text("SELECT 1"))
            async with engine.begin() as other:
                with pytest.raises(StoreBusyError):
                    SessionTx.on(other, session_id="one")

                def join(sync: Any) -> None:
                    SessionTx.on(sync, session_id="one")

                with pytest.raises(StoreBusyError):
                    await other.run_sync(join)
        async with AsyncSession(engine) as session:
            await session.connection()
            assert SessionTx.on(session, session_id="one").work_depth().batches == 1
            await session.commit()
        await engine.dispose()

    asyncio.run(main())


def test_k_tx_14_the_first_two_in_a_schema_wait_for_each_other_beside_the_loop(
    own_url: str,
) -> None:
    """What the one makes the other finds, once it is committed; outside of `run_sync()` it is busy at once."""

    async def main() -> None:
        engine = lash_store.configure(create_async_engine(own_url), busy_timeout_ms=20_000)
        second_comes, joined = asyncio.Event(), []

        def join(sync: Any) -> None:
            joined.append(SessionTx.on(sync, session_id="two").enqueue_work(NewWork([2])))

        async def second() -> None:
            async with engine.begin() as connection:
                with pytest.raises(StoreBusyError):
                    SessionTx.on(connection, session_id="two")
                await connection.rollback()
                second_comes.set()
                async with engine.begin() as other:
                    await other.run_sync(join)

        async with engine.begin() as connection:
            SessionTx.on(connection, session_id="one").enqueue_work(NewWork([1]))
            task = asyncio.create_task(second())
            await second_comes.wait()
            await asyncio.sleep(0.05)
            assert joined == []
        await task
        assert len(joined) == 1
        await engine.dispose()

    asyncio.run(asyncio.wait_for(main(), PATIENCE_S))


def test_k_tx_14_making_tables_waits_no_longer_than_the_budget(own_url: str) -> None:
    engine = lash_store.configure(create_engine(own_url), busy_timeout_ms=100)
    with engine.begin() as first, engine.connect() as second:
        create_tables(first, "session")
        second.begin()
        with pytest.raises(StoreBusyError):
            create_tables(second, "session")
        with pytest.raises(StoreBusyError):
            SessionTx.on(second, session_id="one")
        assert second.scalar(text("SELECT 1")) == 1
    engine.dispose()


def test_k_lock_3_a_joined_tx_waits_for_a_row_within_its_budget(own_url: str) -> None:
    engine = lash_store.configure(create_engine(own_url), busy_timeout_ms=200)
    with ProcessRegistry.open(own_url) as registry:
        register(registry)
        lease = lease_on(registry, ttl_ms=600_000)
        with engine.begin() as first, engine.connect() as second, engine.connect() as third:
            first.execute(select(process_leases).with_for_update())
            second.begin()
            with pytest.raises(StoreBusyError):
                ProcessTx.on(second).renew_lease(lease.fence, ttl_ms=1_000)
            third.execute(text("SET LOCAL lock_timeout = '50ms'"))  # the application's own stays
            tx = ProcessTx.on(third)
            assert third.scalar(text("SHOW lock_timeout")) == "50ms"
            with pytest.raises(StoreBusyError):
                tx.renew_lease(lease.fence, ttl_ms=1_000)
        assert registry.current_lease("p") == lease
    engine.dispose()


def test_k_lock_3_nor_longer_behind_a_savepoint_that_was_undone(own_url: str) -> None:
    engine = lash_store.configure(create_engine(own_url), busy_timeout_ms=200)
    with SessionStore.open(own_url, session_id="one"), engine.begin() as connection:
        with pytest.raises(ValueError, match="no"), connection.begin_nested():
            tx = SessionTx.on(connection, session_id="one")
            raise ValueError("no")
        tx.enqueue_work(NewWork([1]))
        assert connection.scalar(text("SHOW lock_timeout")) == "200ms"
    engine.dispose()


def test_k_tx_14_who_waits_for_a_row_in_run_sync_does_not_stop_the_loop(own_url: str) -> None:
    async def main() -> None:
        engine = lash_store.configure(create_async_engine(own_url), busy_timeout_ms=20_000)
        renewed: list[int] = []

        async def second() -> None:
            async with engine.begin() as connection:

                def renew(sync: Any) -> None:
                    lease = ProcessTx.on(sync).renew_lease(fence, ttl_ms=60_000)
                    renewed.append(lease.expires_at_ms)

                await connection.run_sync(renew)

        async with engine.begin() as connection:
            await connection.execute(select(process_leases).with_for_update())
            task = asyncio.create_task(second())
            for _ in range(10):
                await asyncio.sleep(0.02)
            assert not renewed
            cancelled = asyncio.create_task(second())
            await asyncio.sleep(0.1)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
        await task
        assert len(renewed) == 1
        async with engine.begin() as connection:  # what was cancelled has left no connection behind
            assert await connection.scalar(text("SELECT 1")) == 1
        await engine.dispose()

    with ProcessRegistry.open(own_url) as registry:
        register(registry)
        fence = lease_on(registry, ttl_ms=600_000).fence
        asyncio.run(asyncio.wait_for(main(), PATIENCE_S))


def test_k_tx_14_two_tasks_at_one_connection(own_url: str) -> None:
    """One after another, as long as none is kept waiting; then the other is told."""

    async def main() -> None:
        engine = lash_store.configure(create_async_engine(own_url), busy_timeout_ms=20_000)
        async with engine.begin() as connection:
            await connection.run_sync(lambda sync: SessionTx.on(sync, session_id="one"))

            def enqueue(sync: Any) -> None:
                SessionTx.on(sync, session_id="one").enqueue_work(NewWork([1]))

            await asyncio.gather(*(connection.run_sync(enqueue) for _ in range(8)))
        with SessionStore.open(own_url, session_id="one") as store:
            assert store.work_depth().batches == 8
            async with engine.begin() as connection:
                with store.begin():
                    waits = asyncio.create_task(connection.run_sync(enqueue))
                    await asyncio.sleep(0.1)
                    with pytest.raises(StorageError, match="another task waits for an answer"):
                        await connection.run_sync(enqueue)
                await waits
            assert store.work_depth().batches == 9
            async with engine.begin() as connection:
                tx = await connection.run_sync(lambda sync: SessionTx.on(sync, session_id="one"))
                asks = asyncio.create_task(connection.execute(text("SELECT pg_sleep(0.3)")))
                await asyncio.sleep(0.1)
                with pytest.raises(StorageError, match="another task waits for an answer"):
                    await connection.run_sync(lambda _: tx.work_depth())
                with pytest.raises(StorageError, match="another task waits for an answer"):
                    tx.work_depth()
                await asks
                assert tx.work_depth().batches == 9
        await engine.dispose()

    asyncio.run(asyncio.wait_for(main(), PATIENCE_S))


def test_k_lock_1_what_a_savepoint_undid_is_locked_again(engine: Engine, own_url: str) -> None:
    """The server frees locks that were taken behind a savepoint that is rolled back."""
    with (
        SessionStore.open(own_url, session_id="one", busy_timeout_ms=100) as store,
        engine.begin() as connection,
    ):
        tx = SessionTx.on(connection, session_id="two")
        with pytest.raises(ValueError, match="no"), connection.begin_nested():
            one = SessionTx.on(connection, session_id="one")
            raise ValueError("no")
        assert store.put_blob(b"free")
        one.work_depth()
        with pytest.raises(StoreBusyError):
            store.put_blob(b"locked by who was there already")
        with pytest.raises(ValueError, match="no"), connection.begin_nested():
            raise ValueError("no")
        SessionTx.on(connection, session_id="one")
        with pytest.raises(StoreBusyError):
            store.put_blob(b"locked by who came anew")
        assert tx.work_depth().batches == 0


def test_k_lock_1_what_a_savepoint_undid_is_locked_again_in_a_block(own_url: str) -> None:
    with as_another_process():
        registry = ProcessRegistry.open(own_url, busy_timeout_ms=100)
    with registry, SessionStore.open(own_url, session_id="one") as store, store.begin() as tx:
        with pytest.raises(ValueError, match="no"), tx.connection.begin_nested():
            beside = ProcessTx.beside(tx)
            raise ValueError("no")
        beside.list_processes()
        with pytest.raises(StoreBusyError):
            registry.delete_session("locked by who was there already")
        with pytest.raises(ValueError, match="no"), tx.connection.begin_nested():
            raise ValueError("no")
        ProcessTx.beside(tx)
        with pytest.raises(StoreBusyError):
            registry.delete_session("locked by who came anew")


def test_k_lock_1_what_could_not_be_locked_again_is_tried_again(own_url: str) -> None:
    """In an event loop: a lock that is not had there leaves the transaction as it was."""

    async def main() -> None:
        engine = lash_store.configure(create_async_engine(own_url), busy_timeout_ms=50)
        with SessionStore.open(own_url, session_id="one") as store:
            async with engine.begin() as connection:
                with pytest.raises(ValueError, match="no"):
                    async with connection.begin_nested():
                        tx = SessionTx.on(connection, session_id="one")
                        raise ValueError("no")
                with store.begin():
                    for _ in range(2):
                        with pytest.raises(StoreBusyError):
                            tx.enqueue_work(NewWork([1]))
                assert tx.work_depth().batches == 0
        await engine.dispose()

    asyncio.run(main())


def test_k_tx_8_an_applications_lock_timeout_is_as_it_was(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL lock_timeout = '1234ms'"))
        SessionTx.on(connection, session_id="one").put_blob(b"x")
        assert connection.execute(text("SHOW lock_timeout")).scalar_one() == "1234ms"


def test_k_lock_1_the_schema_is_that_which_is_looked_into_now(
    url: str, place: str, admin: psycopg.Connection[Any]
) -> None:
    """Of one that looks into a tenant's schema for each transaction, on connections of one pool."""
    tenants = [f"{place}_{name}" for name in ("a", "b")]
    engine = lash_store.configure(
        create_engine(url, pool_size=1, max_overflow=0), busy_timeout_ms=50
    )
    try:
        for tenant in tenants:
            admin.execute(f"CREATE SCHEMA {tenant}")
            with engine.begin() as connection:
                connection.exec_driver_sql(f"SET LOCAL search_path = {tenant}")
                SessionTx.on(connection, session_id="s").enqueue_work(NewWork([tenant]))
        for here, there in (tenants, reversed(tenants)):
            with as_another_process(), SessionStore.open(url, schema=here, session_id="s") as store:
                assert [batch.items[0].payload for batch in store.list_work()] == [here]
                with store.begin(), engine.begin() as connection:
                    connection.exec_driver_sql(f"SET LOCAL search_path = {there}")
                    SessionTx.on(connection, session_id="s").list_work()
                    connection.exec_driver_sql(f"SET LOCAL search_path = {here}")
                    with pytest.raises(StoreBusyError):
                        SessionTx.on(connection, session_id="s")
    finally:
        engine.dispose()
        for tenant in tenants:
            admin.execute(f"DROP SCHEMA IF EXISTS {tenant} CASCADE")


def test_k_pg_3_a_connection_that_cant_spell_every_text_is_refused(own_url: str) -> None:
    """Of the library's own it is overruled."""
    in_latin = make_url(own_url).update_query_dict({"client_encoding": "latin1"})
    engine = lash_store.configure(create_engine(in_latin))
    with pytest.raises(NotConfiguredError, match="iso8859-1"), engine.begin() as connection:
        SessionTx.on(connection, session_id="one")
    engine.dispose()
    with SessionStore.open(in_latin.render_as_string(False), session_id="one") as store:
        store.enqueue_work(NewWork(["\u2603"]))
        assert store.list_work()[0].items[0].payload == "\u2603"
