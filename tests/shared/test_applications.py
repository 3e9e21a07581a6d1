"""What applications do with their engines, sessions and migrations before a Tx joins, and beside it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import (
    Column,
    Engine,
    Integer,
    MetaData,
    Table,
    Text,
    create_engine,
    delete,
    event,
    func,
    insert,
    select,
)
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import (
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import scoped_session, sessionmaker

import lash_store
import lash_store.alembic
from lash_store import Deployment, NewWork, SessionStore
from lash_store.errors import (
    InvalidRecordError,
    NotConfiguredError,
    SchemaDriftError,
    StoreOpenError,
    TransactionEndedError,
)
from lash_store.moving import copy_deployment
from lash_store.process.tx import ProcessTx
from lash_store.schemas import OwnTables, check_file, create_tables, stamp_tables
from lash_store.session.tables import queued_work_batches
from lash_store.session.tx import SessionTx


@pytest.fixture
def engine(path: Path) -> Iterator[Engine]:
    made = lash_store.configure(create_engine(f"sqlite:///{path}"))
    yield made
    made.dispose()


@pytest.mark.parametrize("makes", ["joins", "makes tables"])
@pytest.mark.parametrize("where", ["attached", "temporary"])
def test_k_share_3_our_tables_are_the_main_databases(
    tmp_path: Path, path: Path, makes: str, where: str
) -> None:
    """And no others that stand under their names: of a database that is attached, or of the connection alone."""
    attached = tmp_path / "agents.db"
    Deployment.open(f"sqlite:///{attached}").close()
    engine = create_engine(f"sqlite:///{path}")

    @event.listens_for(engine, "connect")
    def stand_beside(connection: Any, _: object) -> None:
        if where == "attached":
            connection.execute("ATTACH ? AS agents", (str(attached),))
        else:
            connection.execute("CREATE TEMP TABLE lash_versions (kind, version)")

    if makes == "joins":
        lash_store.configure(engine)
    with engine.begin() as connection:
        if makes == "joins":
            assert SessionTx.on(connection, session_id="s").work_depth().batches == 0
        else:
            create_tables(connection, SessionTx, ProcessTx)
    engine.dispose()
    assert check_file(path).problems == ()
    assert check_file(path).kind == "shared"


@pytest.mark.parametrize("order", ["before", "after"])
def test_k_tx_8_another_listener_that_begins_is_told(path: Path, order: str) -> None:
    """It is what SQLAlchemy's documentation advises to have SQLite begin."""
    engine = create_engine(f"sqlite:///{path}")

    def listen() -> None:
        @event.listens_for(engine, "connect")
        def take_over(connection: Any, _: object) -> None:
            connection.isolation_level = None

        @event.listens_for(engine, "begin")
        def begin(connection: Any) -> None:
            connection.exec_driver_sql("BEGIN")

    if order == "before":
        listen()
    lash_store.configure(engine)
    if order == "after":
        listen()
    expected: Any = NotConfiguredError if order == "before" else OperationalError
    for _ in range(2):
        with pytest.raises(expected, match="transaction"), engine.begin():
            pass
    engine.dispose()
    assert not path.exists() or check_file(path).kind is None


def test_k_tx_8_an_invalidated_connection_has_ended_its_tx(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.begin()
        tx = SessionTx.on(connection, session_id="a")
        tx.enqueue_work(NewWork([1]))
        connection.invalidate()
        for used in (
            tx.work_depth,
            lambda: tx.cursor,
            lambda: SessionTx.beside(tx, session_id="b"),
        ):
            with pytest.raises(TransactionEndedError):
                used()


def test_k_tx_8_scoped_sessions_are_joined(engine: Engine) -> None:
    scoped = scoped_session(sessionmaker(engine))
    with scoped.begin():
        SessionTx.on(scoped, session_id="s").enqueue_work(NewWork([1]))
        with SessionTx.on(scoped, session_id="s").orm() as orm:
            assert orm.is_active
    scoped.remove()
    with scoped():
        assert SessionTx.on(scoped, session_id="s").work_depth().batches == 1
    scoped.remove()


def test_k_tx_8_scoped_sessions_of_asyncio_are_joined(path: Path) -> None:
    async def main() -> None:
        engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
        lash_store.configure(engine)
        scoped = async_scoped_session(async_sessionmaker(engine), scopefunc=asyncio.current_task)
        session: AsyncSession = scoped()
        async with session.begin():
            await session.connection()

            def enqueue(_: object) -> None:
                SessionTx.on(scoped, session_id="s").enqueue_work(NewWork([1]))

            await session.run_sync(enqueue)
        await scoped.remove()
        await engine.dispose()

    asyncio.run(main())
    with SessionStore.open(f"sqlite:///{path}", session_id="s") as store:
        assert store.work_depth().batches == 1


@pytest.mark.parametrize("prefix", ["agent", "Bad_", "sqlite_x_"])
def test_k_share_5_a_prefix_that_none_can_have_is_refused_to_migrations(prefix: str) -> None:
    with pytest.raises(InvalidRecordError, match="prefix"):
        lash_store.alembic.including(prefix)


def orders(version: int, *names: str) -> OwnTables:
    metadata = MetaData()
    columns = (Column(name, Text) for name in names)
    Table("orders", metadata, Column("id", Integer, primary_key=True), *columns)
    return OwnTables("shop", version, metadata)


def test_k_share_8_a_column_that_a_migration_has_appended_stands_wherever_it_is_declared(
    path: Path,
) -> None:
    url = f"sqlite:///{path}"
    SessionStore.open(url, session_id="s", tables=[orders(1, "session")]).close()
    declared = orders(2, "note", "session")
    engine = create_engine(url)
    with engine.begin() as connection:
        operations = Operations(MigrationContext.configure(connection))
        operations.add_column("orders", Column("note", Text))
        stamp_tables(connection, declared)
        with pytest.raises(SchemaDriftError, match="note"):
            stamp_tables(connection, orders(3, "session"))
    engine.dispose()
    SessionStore.open(url, session_id="s", tables=[declared]).close()
    with pytest.raises(SchemaDriftError, match="other"):
        SessionStore.open(url, session_id="s", tables=[orders(2, "other", "session")])


def test_k_share_1_a_file_where_a_folder_is_to_be_is_opened_by_its_url(path: Path) -> None:
    url = f"sqlite:///{path}"
    Deployment.open(url).close()
    for refused in (
        lambda: Deployment.open(path),
        lambda: copy_deployment(path, path.with_name("copied")),
    ):
        with pytest.raises(StoreOpenError, match="by its URL, 'sqlite:///"):
            refused()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_k_share_5_a_table_of_an_attached_database_is_none_of_ours(tmp_path: Path) -> None:
    """Of a copy that an archive has, say: what is deleted there stays here."""
    with closing(sqlite3.connect(tmp_path / "archive.db")) as old:
        old.execute("CREATE TABLE queued_work_batches (batch_id TEXT, enqueue_seq INTEGER)")
        old.execute("INSERT INTO queued_work_batches VALUES ('old', 1), ('older', 2)")
        old.execute("CREATE TABLE lash_blobs (hash TEXT)")
        old.commit()
    engine = create_engine(f"sqlite:///{tmp_path / 'app.db'}")

    @event.listens_for(engine, "connect")
    def attach(raw: Any, _: Any) -> None:
        raw.execute(f"ATTACH '{tmp_path / 'archive.db'}' AS archive")

    lash_store.configure(engine)
    archived = queued_work_batches.to_metadata(MetaData(), schema="archive")
    with engine.begin() as connection:
        SessionTx.on(connection, session_id="s").enqueue_work(NewWork(["pay"]))
    with engine.begin() as connection:
        tx = SessionTx.on(connection, session_id="s")
        count = select(func.count()).select_from(archived)
        assert connection.scalar(count) == 2
        assert connection.scalars(select(archived.c.batch_id)).all() == ["old", "older"]
        reflected = Table("lash_blobs", MetaData(), schema="archive", autoload_with=connection)
        connection.execute(insert(reflected).values(hash="x"))
        assert connection.scalars(select(reflected.c.hash)).all() == ["x"]
        assert connection.execute(delete(archived)).rowcount == 2
        assert tx.work_depth().batches == 1
    engine.dispose()
