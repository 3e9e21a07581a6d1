"""How an application has its connections, tables and results: a Tx that joins, or lends its own, leaves that as it is."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import (
    Column,
    Connection,
    Integer,
    MetaData,
    Table,
    Text,
    create_engine,
    make_url,
    text,
)
from sqlalchemy.ext.asyncio import create_async_engine

import lash_store
from lash_store import Deployment, NewWork, ProcessRegistry, SessionStore
from lash_store._backends.postgresql import guard
from lash_store.errors import (
    NamesTakenError,
    NotConfiguredError,
    ReadOnlyStoreError,
    SchemaDriftError,
    SchemaVersionError,
    StoreOpenError,
    ThreadError,
    TransactionEndedError,
)
from lash_store.process.tx import ProcessTx
from lash_store.schemas import create_tables
from lash_store.session.tx import SessionTx
from lash_store.testing import as_another_process
from tests.support.registries import registration
from tests.support.turns import join, outcome, started


@pytest.fixture
def store(own_url: str) -> Iterator[SessionStore]:
    with SessionStore.open(own_url, session_id="s") as opened:
        yield opened


def hasty(own_url: str) -> str:
    """The same database, for a role whose statements may not take long."""
    url = make_url(own_url)
    said = f"{url.query['options']} -cstatement_timeout=100ms"
    return url.update_query_dict({"options": said}).render_as_string(hide_password=False)


@pytest.mark.parametrize("where", ["engine", "connection"])
@pytest.mark.parametrize(
    "options",
    [
        {"isolation_level": "REPEATABLE READ"},
        {"isolation_level": "SERIALIZABLE"},
        {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
    ],
    ids=["repeatable", "serializable", "reads"],
)
def test_k_pg_3_asyncio_s_transactions_are_as_the_application_has_said(
    own_url: str, store: SessionStore, options: dict[str, Any], where: str
) -> None:
    """Whether it is the application's first statement or that of a Tx which begins them."""
    store.enqueue_work(NewWork([1]))

    def join_it(connection: Connection) -> object:
        tx = SessionTx.on(connection, session_id="s")
        if not options.get("postgresql_readonly"):
            return tx
        with pytest.raises(ReadOnlyStoreError):
            tx.enqueue_work(NewWork([2]))
        return tx.work_depth().batches

    async def main() -> None:
        made = create_async_engine(own_url, execution_options=options if where == "engine" else {})
        engine = lash_store.configure(made)
        async with engine.connect() as connection:
            if where == "connection":
                await connection.execution_options(**options)
            async with connection.begin():
                if options.get("postgresql_readonly"):
                    assert await connection.run_sync(join_it) == 1
                    shown = await connection.execute(text("SHOW transaction_read_only"))
                    assert shown.scalar_one() == "on"
                else:
                    with pytest.raises(NotConfiguredError, match=options["isolation_level"]):
                        await connection.run_sync(join_it)
                shown = await connection.execute(text("SHOW transaction_isolation"))
                assert shown.scalar_one() == options["isolation_level"].lower()
        await engine.dispose()

    asyncio.run(main())
    assert store.work_depth().batches == 1


def test_k_tx_8_a_two_phase_transaction_is_refused_as_that(own_url: str) -> None:
    engine = lash_store.configure(create_engine(own_url))
    with engine.connect() as connection, connection.begin_twophase():
        with pytest.raises(NotConfiguredError, match="two-phase"):
            SessionTx.on(connection, session_id="s")
        assert connection.execute(text("SELECT to_regclass('lash_meta')")).scalar_one() is None
    engine.dispose()


def test_k_share_3_tables_made_in_autocommit_are_made_once_or_not_at_all(
    own_url: str,
    admin: psycopg.Connection[Any],
    place: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = create_engine(own_url, isolation_level="AUTOCOMMIT")
    ensure_schema, made = guard.ensure_schema, list[str]()

    def fail_at_the_third(cursor: Any, schema: Any, *rest: Any) -> None:
        if len(made) == 2:
            raise ZeroDivisionError
        made.append(schema.kind)
        ensure_schema(cursor, schema, *rest)

    def make() -> object:
        with engine.connect() as connection:
            create_tables(connection)
            return connection.execute(text("SELECT 1")).scalar_one()

    monkeypatch.setattr(guard, "ensure_schema", fail_at_the_third)
    with pytest.raises(ZeroDivisionError):
        make()
    monkeypatch.undo()
    tables = f"SELECT count(*) FROM pg_tables WHERE schemaname = '{place}'".encode()
    assert admin.execute(tables).fetchone() == (0,)
    told = list[object]()
    join(*started(*[lambda: told.append(outcome(make))] * 4))
    assert told == [1, 1, 1, 1]
    engine.dispose()
    with Deployment.open(own_url) as deployment:
        assert deployment.effects.list_effects() == []


@pytest.mark.parametrize("configured", [False, True])
def test_k_share_3_a_migration_says_in_which_schema_the_tables_are_made(
    url: str, place: str, configured: bool
) -> None:
    engine = create_engine(url)
    if configured:
        lash_store.configure(engine)
    with engine.begin() as connection:
        create_tables(connection, schema=place)
        found = connection.execute(text("SELECT to_regclass('lash_blobs')")).scalar_one()
        assert found is None  # not where the connection looks first
    engine.dispose()
    with Deployment.open(url, schema=place, create=False) as deployment:
        assert deployment.sessions.list() == []


@pytest.mark.parametrize(
    ("script", "name"),
    [
        (
            "CREATE SEQUENCE {}.lash_trigger_subscription_seq_id_seq",
            "lash_trigger_subscription_seq_id_seq",
        ),
        (
            "CREATE TABLE {0}.mine (a int); CREATE INDEX lash_idx_process_events_key ON {0}.mine (a)",
            "lash_idx_process_events_key",
        ),
        ("CREATE TYPE {}.lash_processes AS ENUM ('a')", "lash_processes"),
    ],
    ids=["sequence", "index", "type"],
)
def test_k_share_3_names_that_anything_has_taken_are_told(
    own_url: str, admin: psycopg.Connection[Any], place: str, script: str, name: str
) -> None:
    admin.execute(script.format(place).encode())
    for _ in range(2):
        with pytest.raises(NamesTakenError, match=name):
            Deployment.open(own_url)
    tables = f"SELECT count(*) FROM pg_tables WHERE schemaname = '{place}' AND tablename ~ 'process|trigger'"
    of_kind = "trigger" if "trigger" in name else "process"
    found = admin.execute(tables.replace("process|trigger", of_kind).encode())
    assert found.fetchone() == (0,)


def test_k_compose_5_an_application_s_tables_are_made_as_it_declares_them(
    own_url: str, store: SessionStore
) -> None:
    metadata = MetaData()
    Table("own_a", metadata, Column("id", Integer, primary_key=True), Column("name", Text))
    Table("own_b", metadata, Column("name", Text(collation="C")))
    with store.begin() as tx:
        metadata.create_all(tx.connection)
        told = tx.connection.execute(
            text(
                "SELECT table_name, collation_name FROM information_schema.columns "
                "WHERE table_name LIKE 'own__' AND column_name = 'name' ORDER BY 1"
            )
        ).all()
    assert told == [("own_a", None), ("own_b", "C")]


@pytest.mark.parametrize("how", ["streamed", "named"])
def test_k_tx_9_what_is_streamed_is_used_in_its_transaction_and_thread(
    store: SessionStore, how: str
) -> None:
    def open_it(connection: Connection) -> Any:
        numbers = "SELECT generate_series(1, 5000)"
        if how == "streamed":
            return connection.execution_options(stream_results=True).execute(text(numbers))
        raw: Any = connection.connection.cursor("mine")
        raw.execute(numbers)
        return raw

    told = list[object]()
    with store.begin() as tx:
        result = open_it(tx.connection)
        assert result.fetchone() == (1,)
        join(*started(lambda: told.append(outcome(lambda: result.fetchmany(2_000)))))
    assert [type(each) for each in told] == [ThreadError]
    with pytest.raises(TransactionEndedError, match="fetch its rows inside"):
        for _ in range(5_000):
            result.fetchone()
    with store.begin() as tx:
        result = open_it(tx.connection)
        assert len(result.fetchall()) == 5_000


def test_k_lock_3_a_statement_timeout_ends_no_wait_of_who_joins(own_url: str) -> None:
    engine = lash_store.configure(create_engine(hasty(own_url)))
    with (
        SessionStore.open(own_url, session_id="s") as store,
        ProcessRegistry.open(hasty(own_url)) as registry,
    ):
        for join_it in ("consumer", "block"):
            inside, go_on = threading.Event(), threading.Event()

            def hold() -> None:
                with store.begin():
                    inside.set()  # noqa: B023 # reason: joined below
                    go_on.wait(60)  # noqa: B023 # reason: likewise

            def wait(how: str) -> str:
                with engine.begin() if how == "consumer" else registry.begin() as begun:
                    tx = (
                        SessionTx.on(begun, session_id="s")
                        if isinstance(begun, Connection)
                        else SessionTx.beside(begun, session_id="s")
                    )
                    tx.enqueue_work(NewWork([how]))
                    return str(tx.connection.execute(text("SHOW statement_timeout")).scalar_one())

            told = list[object]()
            threads = started(hold)
            assert inside.wait(60)
            threads += started(lambda: told.append(outcome(lambda: wait(join_it))))  # noqa: B023 # reason: likewise
            time.sleep(0.4)
            assert told == []
            go_on.set()
            join(*threads)
            assert told == ["100ms"]
        assert [batch.items[0].payload for batch in store.list_work()] == ["consumer", "block"]
    engine.dispose()


@pytest.mark.parametrize("lacks", ["create", "usage", "tables"])
def test_k_open_4_rights_that_are_missing_are_told_as_what_keeps_it_from_being_opened(
    own_url: str, admin: psycopg.Connection[Any], place: str, lacks: str
) -> None:
    url = make_url(own_url)
    if lacks == "tables":
        SessionStore.open(own_url, session_id="s").close()
    admin.execute(f"CREATE ROLE {place}_poor LOGIN PASSWORD 'poor'".encode())
    if lacks != "usage":
        admin.execute(f"GRANT USAGE ON SCHEMA {place} TO {place}_poor".encode())
    poor = url.set(username=f"{place}_poor", password="poor").render_as_string(hide_password=False)
    try:
        with pytest.raises(
            StoreOpenError, match=place if lacks != "tables" else "permission"
        ) as error:
            SessionStore.open(poor, session_id="s", schema=place)
        assert "postgresql" in error.value.path
        assert "poor:poor" not in str(error.value)
    finally:
        admin.execute(f"DROP OWNED BY {place}_poor".encode())
        admin.execute(f"DROP ROLE {place}_poor".encode())


def test_k_share_6_the_tables_of_another_kind_are_made_in_the_transaction(
    own_url: str, store: SessionStore
) -> None:
    """As in a file: whoever has opened sessions alone may come to processes from there."""
    with store.read() as tx, pytest.raises(SchemaVersionError, match="no tables of a process"):
        ProcessTx.beside(tx)
    with pytest.raises(ValueError, match="undone"), store.begin() as tx:
        for _ in range(2):  # its tables are made, and are there
            assert ProcessTx.beside(tx).list_processes() == []
        raise ValueError("undone")
    with store.read() as tx, pytest.raises(SchemaVersionError, match="no tables of a process"):
        ProcessTx.beside(tx)
    with store.begin() as tx:
        ProcessTx.beside(tx).register_process(registration("p"))
    with ProcessRegistry.open(own_url) as registry:
        assert [each.id for each in registry.list_processes()] == ["p"]
        registry.request_cancel("p")
    with store.read() as tx:
        assert len(ProcessTx.beside(tx).recent_events("p")) == 1


def test_k_guard_3_tables_of_another_kind_that_have_changed_are_told(
    own_url: str, store: SessionStore
) -> None:
    with as_another_process():
        ProcessRegistry.open(own_url).close()
    with store.begin() as tx:
        tx.connection.execute(text("ALTER TABLE lash_processes ADD COLUMN more text"))
    with pytest.raises(SchemaDriftError, match="more"), store.begin() as tx:
        ProcessTx.beside(tx)
    assert store.work_depth().batches == 0


def test_k_share_6_a_role_that_may_make_nothing_is_told(
    own_url: str, store: SessionStore, admin: psycopg.Connection[Any], place: str
) -> None:
    poor = f"{place}_poor"
    for said in (
        f"CREATE ROLE {poor} LOGIN PASSWORD 'poor'",
        f"GRANT USAGE ON SCHEMA {place} TO {poor}",
        f"GRANT ALL ON ALL TABLES IN SCHEMA {place} TO {poor}",
        f"GRANT ALL ON ALL SEQUENCES IN SCHEMA {place} TO {poor}",
    ):
        admin.execute(said.encode())
    url = make_url(own_url).set(username=poor, password="poor")
    try:
        with SessionStore.open(url.render_as_string(hide_password=False), session_id="t") as its:
            with pytest.raises(StoreOpenError, match="permission denied"), its.begin() as tx:
                ProcessTx.beside(tx)
            its.enqueue_work(NewWork([1]))
            assert its.work_depth().batches == 1
    finally:
        admin.execute(f"DROP OWNED BY {poor}".encode())
        admin.execute(f"DROP ROLE {poor}".encode())


@pytest.mark.parametrize("options", [{"stream_results": True}, {"yield_per": 2}], ids=str)
def test_k_tx_8_a_snapshot_is_joined_where_results_are_streamed(
    own_url: str, store: SessionStore, options: dict[str, Any]
) -> None:
    """The application's own statements go by a cursor of the server's; what begins the snapshot can't."""
    for each in range(5):
        store.enqueue_work(NewWork([each]))
    engine = lash_store.configure(create_engine(own_url))
    with engine.connect() as connection:
        streaming = connection.execution_options(lash_store_read=True, **options)
        with streaming.begin():
            assert SessionTx.on(streaming, session_id="s").work_depth().batches == 5
            rows = streaming.execute(text("SELECT generate_series(1, 5)")).scalars()
            assert rows.all() == [1, 2, 3, 4, 5]
    engine.dispose()
