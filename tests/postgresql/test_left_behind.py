"""What a block leaves on a connection, or takes to a child: nobody else meets it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from sqlalchemy import create_engine, make_url, text

import lash_store
from lash_store import NewWork, ProcessRegistry, SessionStore
from lash_store.errors import (
    NestedTransactionError,
    NotConfiguredError,
    StoreOpenError,
    TransactionControlError,
    TransactionEndedError,
)
from lash_store.schemas import create_tables
from lash_store.session.tx import SessionTx
from tests.support.registries import register


@pytest.fixture
def store(own_url: str) -> Iterator[SessionStore]:
    with SessionStore.open(own_url, session_id="s", pool_size=1) as opened:
        yield opened


@pytest.mark.posix("forks")
@pytest.mark.parametrize("block", [ProcessRegistry.read, ProcessRegistry.begin])
def test_k_open_5_a_child_that_was_forked_inside_a_block_is_refused_it(
    own_url: str, block: Callable[[ProcessRegistry], Any]
) -> None:
    """Both would talk on one connection, and get each other's rows."""
    with ProcessRegistry.open(own_url) as registry:
        for name in ("mine", "its"):
            register(registry, name)
        with block(registry) as tx:
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    tx.load_process("its")
                except TransactionEndedError:
                    code = 0
                finally:
                    os._exit(code)
            assert os.waitpid(pid, 0)[1] == 0
            assert tx.load_process("mine").id == "mine"


@pytest.mark.parametrize("by", ["stream", "copy"])
def test_k_tx_7_no_cursor_of_the_driver_s_can_end_the_transaction(
    store: SessionStore, by: str
) -> None:
    with pytest.raises(TransactionControlError), store.begin() as tx:
        tx.enqueue_work(NewWork(["half"]))
        cursor: Any = tx.connection.connection.cursor()
        if by == "stream":
            list(cursor.stream("COMMIT"))
        else:
            with cursor.copy("COMMIT"):
                pass
    assert store.work_depth().batches == 0


def test_k_tx_7_rows_are_streamed_and_copied_by_the_driver_s_cursors(store: SessionStore) -> None:
    with store.begin() as tx:
        tx.connection.execute(text("CREATE TABLE numbers (n int)"))
        cursor: Any = tx.connection.connection.cursor()
        with cursor.copy("COPY numbers FROM STDIN") as copy:
            copy.write_row((1,))
            copy.write_row((2,))
        assert list(cursor.stream("SELECT n FROM numbers WHERE n > %s", (1,))) == [(2,)]
    with pytest.raises(TransactionEndedError):
        next(cursor.stream("SELECT 1"))


def test_k_tx_9_a_stream_that_is_kept_does_not_keep_its_transaction_from_its_end(
    store: SessionStore,
) -> None:
    much = (
        "SELECT repeat('x', 1000) FROM generate_series(1, 20000)"  # more than is on its way at once
    )
    for block in (store.begin, store.read):
        with block() as tx:
            if block == store.begin:
                tx.enqueue_work(NewWork([1]))
            cursor: Any = tx.connection.connection.cursor()
            rows, unread = cursor.stream(much), cursor.stream("SELECT 1 / 0")
            assert next(rows) == ("x" * 1000,)
        assert list(rows) == []
        assert list(unread) == []
        assert store.work_depth().batches == 1


def test_k_lock_1_a_savepoint_of_the_driver_s_is_refused(store: SessionStore) -> None:
    """It would go back past the locks that were taken behind it, and nobody here would know."""
    with store.begin() as tx:
        raw: Any = tx.connection.connection.driver_connection
        with pytest.raises(TransactionControlError, match=r"begin_nested\(\)"), raw.transaction():
            pass
        tx.enqueue_work(NewWork([1]))
    assert store.work_depth().batches == 1


def test_k_pg_2_the_next_one_meets_nothing_of_a_consumer_s(store: SessionStore) -> None:
    with store.begin() as tx:
        raw: Any = tx.connection.connection.driver_connection
        raw.row_factory = dict_row
        tx.connection.execute(text("CREATE TABLE pg_temp.scratch (a int)"))
    with store.begin() as tx:
        assert tx.connection.scalar(text("SELECT 41 + 1 AS answer")) == 42
        assert tx.connection.scalar(text("SELECT to_regclass('pg_temp.scratch')")) is None


def test_k_pg_7_however_its_driver_is_written_a_url_is_one_database(own_url: str) -> None:
    bare = own_url.replace("postgresql+psycopg:", "postgresql:")
    assert bare != own_url
    with (
        SessionStore.open(own_url, session_id="s") as one,
        SessionStore.open(bare, session_id="s", busy_timeout_ms=2_000) as two,
        one.begin(),
        pytest.raises(NestedTransactionError),
    ):
        two.enqueue_work(NewWork(["x"]))


def test_k_share_3_rights_that_are_missing_are_told_as_opening_tells_them(
    own_url: str, admin: psycopg.Connection[Any], place: str
) -> None:
    poor = f"{place}_poor"
    admin.execute(f"CREATE ROLE {poor} LOGIN PASSWORD 'poor'".encode())
    admin.execute(f"GRANT USAGE ON SCHEMA {place} TO {poor}".encode())
    engine = lash_store.configure(
        create_engine(make_url(own_url).set(username=poor, password="poor"))
    )
    try:
        with engine.connect() as connection:
            with pytest.raises(StoreOpenError, match="permission denied"):
                create_tables(connection)
            connection.rollback()
            with connection.begin(), pytest.raises(StoreOpenError, match="permission denied"):
                SessionTx.on(connection, session_id="s")
    finally:
        engine.dispose()
        admin.execute(f"DROP OWNED BY {poor}".encode())
        admin.execute(f"DROP ROLE {poor}".encode())


def test_k_share_3_tables_are_made_behind_no_older_snapshot(own_url: str) -> None:
    engine = create_engine(own_url, isolation_level="REPEATABLE READ")
    with engine.connect() as connection:
        connection.execute(text("SELECT 1 FROM pg_class LIMIT 1")).all()
        with pytest.raises(NotConfiguredError, match="READ COMMITTED"):
            create_tables(connection)
        assert connection.scalar(text("SELECT to_regclass('lash_versions')")) is None
    SessionStore.open(own_url, session_id="s").close()
    ProcessRegistry.open(own_url).close()
    for open_store in (lash_store.EffectStore.open, lash_store.TriggerStore.open):
        open_store(own_url).close()
    with engine.begin() as connection:
        create_tables(connection)  # there is nothing to make
    engine.dispose()
