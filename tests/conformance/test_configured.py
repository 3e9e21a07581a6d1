"""K-TX-8: joining a consumer's own transaction, and every connection that is refused."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from lash_store import NewWork, ProcessTx, SessionLease, SessionStore, SessionTx, configure
from lash_store.effect.tx import EffectTx
from lash_store.errors import (
    InvalidRecordError,
    LeaseLostError,
    NotConfiguredError,
    ReadOnlyStoreError,
    SchemaDriftError,
    SchemaVersionError,
    StoreBusyError,
    StoreOpenError,
    TransactionEndedError,
)
from lash_store.session.tables import session_head as head
from lash_store.testing import ManualClock, SequentialIds
from tests.support.databases import all_rows
from tests.support.turns import held

READ = {"lash_store_read": True}


@pytest.fixture
def engine(path: Path) -> Iterator[Engine]:
    SessionStore.open(path, session_id="s").close()
    engine = configure(create_engine(f"sqlite:///{path}"))
    yield engine
    engine.dispose()


def test_k_tx_8_operations_and_statements_are_one_transaction(engine: Engine, path: Path) -> None:
    with engine.begin() as connection:
        tx = SessionTx.on(connection, session_id="s", clock=ManualClock(5), ids=SequentialIds())
        lease = tx.claim_lease(owner_id="ann", ttl_ms=60_000)
        assert isinstance(lease, SessionLease)
        assert (tx.now_ms, lease.fence.token) == (5, "token-1")
        assert tx.connection is connection
        connection.execute(text("INSERT INTO blobs VALUES ('h', x'00')"))
        tx.require(lease.fence)
    rows = all_rows(path)
    assert (len(rows["blobs"]), len(rows["session_execution_leases"])) == (1, 1)


@pytest.mark.parametrize("how", ["exception", "rollback", "close"])
def test_k_tx_8_the_consumers_rollback_undoes_the_operations(
    engine: Engine, path: Path, how: str
) -> None:
    before = all_rows(path)
    with engine.connect() as connection:
        connection.begin()
        tx = SessionTx.on(connection, session_id="s")
        tx.claim_lease(owner_id="ann", ttl_ms=60_000)
        if how == "rollback":
            connection.rollback()
        elif how == "close":
            connection.close()
        with pytest.raises(TransactionEndedError) if how != "exception" else _nothing():
            tx.current_lease()
    assert all_rows(path) == before


class _nothing:  # noqa: N801 # reason: stands where a function would
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def test_k_tx_8_its_transactions_take_the_write_lock_at_once(engine: Engine, path: Path) -> None:
    with SessionStore.open(path, session_id="s", busy_timeout_ms=0) as store:
        with engine.begin(), pytest.raises(StoreBusyError):
            store.claim_lease(owner_id="ann", ttl_ms=1)
        store.claim_lease(owner_id="ann", ttl_ms=1)


def test_k_tx_8_a_busy_database_is_our_error(path: Path) -> None:
    engine = configure(create_engine(f"sqlite:///{path}"), busy_timeout_ms=30)
    with SessionStore.open(path, session_id="s") as store, held(store):
        with pytest.raises(StoreBusyError) as refusal, engine.begin():
            pass
        assert refusal.value.waited_ms >= 30
    engine.dispose()


def test_k_tx_8_it_gets_the_stores_settings(engine: Engine) -> None:
    names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout", "temp_store")
    with engine.begin() as connection:
        found = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]
    assert found == ["wal", 1, 1, 15_000, 2]


def test_k_tx_8_configuring_twice_is_harmless(engine: Engine) -> None:
    assert configure(engine) is engine
    with engine.begin() as connection:
        SessionTx.on(connection, session_id="s").claim_lease(owner_id="ann", ttl_ms=1)


def test_k_tx_8_an_engine_that_was_in_use_can_be_configured(path: Path) -> None:
    SessionStore.open(path, session_id="s").close()
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    configure(engine)
    with engine.begin() as connection:
        SessionTx.on(connection, session_id="s").claim_lease(owner_id="ann", ttl_ms=1)
    engine.dispose()


def test_k_tx_8_a_recorded_read_reads_and_refuses_writes(engine: Engine, path: Path) -> None:
    before = all_rows(path)
    with engine.connect().execution_options(**READ) as connection, connection.begin():
        tx = SessionTx.on(connection, session_id="s")
        assert tx.current_lease() is None
        with pytest.raises(ReadOnlyStoreError):
            tx.claim_lease(owner_id="ann", ttl_ms=1)
        with SessionStore.open(path, session_id="s", busy_timeout_ms=0) as store:
            store.claim_lease(owner_id="bob", ttl_ms=60_000)  # it holds no lock
        assert tx.current_lease() is None  # it is a snapshot
    assert all_rows(path) != before
    with engine.begin() as connection:  # the same pooled connection writes again
        SessionTx.on(connection, session_id="s").claim_lease(owner_id="ann", ttl_ms=1)


def test_k_tx_8_a_read_does_not_initialise(path: Path) -> None:
    engine = configure(create_engine(f"sqlite:///{path}"))
    with (
        engine.connect().execution_options(**READ) as connection,
        connection.begin(),
        pytest.raises(SchemaVersionError),
    ):
        SessionTx.on(connection, session_id="s")
    engine.dispose()


def test_k_tx_8_the_tx_ends_with_the_transaction(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.begin()
        tx = SessionTx.on(connection, session_id="s")
        lease = tx.claim_lease(owner_id="ann", ttl_ms=60_000)
        connection.commit()
        assert isinstance(lease, SessionLease)
        connection.begin()
        for use in (
            tx.current_lease,
            lambda: tx.renew_lease(lease.fence, ttl_ms=1),
            lambda: tx.connection,
        ):
            with pytest.raises(TransactionEndedError):
                use()
        with pytest.raises(LeaseLostError):
            SessionTx.on(connection, session_id="s", clock=ManualClock(2**62)).require(lease.fence)


def test_k_tx_8_savepoints_of_the_consumer_work(engine: Engine, path: Path) -> None:
    with engine.begin() as connection:
        tx = SessionTx.on(connection, session_id="s")
        with pytest.raises(ZeroDivisionError), connection.begin_nested():
            tx.claim_lease(owner_id="ann", ttl_ms=60_000)
            raise ZeroDivisionError
        assert tx.current_lease() is None
        tx.claim_lease(owner_id="bob", ttl_ms=60_000)
    assert [row[1] for row in all_rows(path)["session_execution_leases"]] == ["bob"]


def test_k_tx_8_an_engine_that_was_not_configured_is_refused(path: Path) -> None:
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection, pytest.raises(NotConfiguredError):
        SessionTx.on(connection, session_id="s")
    engine.dispose()


@pytest.mark.sqlite("a server undoes what it refuses to commit")
def test_k_tx_8_what_a_commit_refuses_is_undone_at_once(engine: Engine, path: Path) -> None:
    """SQLite leaves such a transaction open: its Connection could not be used again, nor the file."""
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TEMP TABLE parents (id INTEGER PRIMARY KEY)")
        connection.exec_driver_sql(
            "CREATE TEMP TABLE children (parent INTEGER REFERENCES parents (id) "
            "DEFERRABLE INITIALLY DEFERRED)"
        )
    before = all_rows(path)
    with engine.connect() as connection:
        connection.begin()
        SessionTx.on(connection, session_id="s").enqueue_work(NewWork(["undone"]))
        connection.exec_driver_sql("INSERT INTO children VALUES (7)")
        with pytest.raises(IntegrityError):
            connection.commit()
        assert all_rows(path) == before
        with SessionStore.open(path, session_id="s", busy_timeout_ms=0) as store:
            store.enqueue_work(NewWork(["beside"]))
        connection.rollback()  # which SQLAlchemy asks for
        with connection.begin():
            SessionTx.on(connection, session_id="s").enqueue_work(NewWork(["again"]))
    assert len(all_rows(path)["queued_work_items"]) == 2


def test_k_tx_8_a_deferred_write_transaction_is_refused(path: Path) -> None:
    """One that another listener began: it was not recorded, so it proves nothing."""
    engine = create_engine(f"sqlite:///{path}", connect_args={"isolation_level": None})
    with engine.begin() as connection:
        connection.exec_driver_sql("BEGIN DEFERRED")
        with pytest.raises(NotConfiguredError):
            SessionTx.on(connection, session_id="s")
    engine.dispose()


def test_k_tx_8_autocommit_is_refused(engine: Engine, path: Path) -> None:
    before = all_rows(path)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SELECT 1"))
        with pytest.raises(NotConfiguredError):
            SessionTx.on(connection, session_id="s")
    assert all_rows(path) == before
    with engine.begin() as connection:
        SessionTx.on(connection, session_id="s").claim_lease(owner_id="ann", ttl_ms=1)


def test_k_tx_8_an_orm_session_of_several_engines_says_on_which(engine: Engine) -> None:
    with Session(binds={head: engine}) as orm:
        with pytest.raises(NotConfiguredError, match="bind_arguments"):
            SessionTx.on(orm, session_id="s")
        connection = orm.connection(bind_arguments={"clause": head})
        SessionTx.on(connection, session_id="s").enqueue_work(NewWork([1]))


def test_k_tx_8_a_connection_that_is_closed_or_invalidated_is_refused(engine: Engine) -> None:
    closed = engine.connect()
    closed.begin()
    closed.close()
    with engine.connect() as invalidated:
        invalidated.begin()
        invalidated.invalidate()
        for connection, why in ((closed, "is closed"), (invalidated, "is invalidated")):
            with pytest.raises(NotConfiguredError, match=why):
                SessionTx.on(connection, session_id="s")


def test_k_tx_8_no_transaction_is_refused(engine: Engine) -> None:
    with engine.connect() as connection, pytest.raises(NotConfiguredError):
        SessionTx.on(connection, session_id="s")


def test_k_tx_8_a_transaction_ended_behind_sqlalchemys_back_is_refused(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.begin()
        tx = SessionTx.on(connection, session_id="s")
        connection.exec_driver_sql("COMMIT")
        with pytest.raises(TransactionEndedError):
            tx.current_lease()
        with pytest.raises(NotConfiguredError):
            SessionTx.on(connection, session_id="s")


@pytest.mark.parametrize("what", [None, "sqlite://", object(), sqlite3.connect])
def test_k_tx_8_what_is_no_connection_is_refused(what: Any) -> None:
    with pytest.raises(NotConfiguredError):
        SessionTx.on(what, session_id="s")
    with pytest.raises(NotConfiguredError):
        configure(what)


def test_k_tx_8_a_bare_dbapi_connection_is_refused() -> None:
    with closing(sqlite3.connect(":memory:")) as connection, pytest.raises(NotConfiguredError):
        SessionTx.on(connection, session_id="s")  # type: ignore[arg-type] # reason: that is the test


def test_k_tx_8_another_database_is_refused() -> None:
    with pytest.raises(NotConfiguredError):
        configure(create_engine("postgresql+psycopg2://nobody@localhost/none"))


def test_k_tx_8_the_connection_of_a_store_is_refused(store: SessionStore) -> None:
    """Its operations are those of the store's own Tx."""
    with store.begin() as tx, pytest.raises(NotConfiguredError):
        SessionTx.on(tx.connection, session_id="s")


@pytest.mark.canonical("drops a table of a file")
def test_k_tx_8_a_drifted_file_and_a_bad_session_id_are_refused(engine: Engine) -> None:
    with engine.begin() as connection, pytest.raises(InvalidRecordError):
        SessionTx.on(connection, session_id="")
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE usage_deltas"))
        with pytest.raises(SchemaDriftError):
            SessionTx.on(connection, session_id="s")


def test_an_in_memory_engine_can_be_configured() -> None:
    engine = configure(create_engine("sqlite://"))
    with engine.begin() as connection:
        SessionTx.on(connection, session_id="s").claim_lease(owner_id="ann", ttl_ms=60_000)
    with engine.begin() as connection:
        assert SessionTx.on(connection, session_id="s").current_lease() is not None
    engine.dispose()


def test_k_tx_8_an_engine_with_options_of_its_own_can_be_configured_too(
    engine: Engine, path: Path
) -> None:
    reader = configure(engine.execution_options(**READ))
    with reader.connect() as connection, connection.begin():
        assert SessionTx.on(connection, session_id="s").current_lease() is None
    with engine.begin() as connection:
        SessionTx.on(connection, session_id="s").claim_lease(owner_id="ann", ttl_ms=1)
    assert len(all_rows(path)["session_execution_leases"]) == 1


def test_k_tx_8_views_of_one_engine_have_one_place(engine: Engine, path: Path) -> None:
    """They share what was compiled: one's statements would run on the other's tables."""
    view = engine.execution_options(tenant="a")
    with pytest.raises(NotConfiguredError, match=r"prefix='other_'.*prefix='lash_'"):
        configure(view, prefix="other_")
    bare = create_engine(f"sqlite:///{path}")
    one, two = (bare.execution_options(tenant=name) for name in "ab")
    assert configure(configure(one, prefix="one_"), prefix="one_") is one
    with pytest.raises(NotConfiguredError, match="create_engine"):
        configure(two, prefix="two_")
    assert configure(two, prefix="one_") is two
    with view.begin() as connection:  # by the engine that it is a view of
        assert SessionTx.on(connection, session_id="s").current_lease() is None
    bare.dispose()


@pytest.mark.sqlite("an engine on a file")
def test_k_tx_8_a_view_that_is_configured_to_read_reads(engine: Engine, path: Path) -> None:
    SessionStore.open(path, session_id="s").close()
    view = engine.execution_options(tenant="a")
    reader = configure(view, begin="read")
    with engine.begin() as writing, reader.begin() as reading:  # it waits for nobody's lock
        SessionTx.on(writing, session_id="s").put_blob(b"x")
        assert SessionTx.on(reading, session_id="s").current_lease() is None
        with pytest.raises(ReadOnlyStoreError):
            SessionTx.on(reading, session_id="s").put_blob(b"x")
    writer = engine.execution_options(tenant="b")
    assert configure(writer.execution_options(more=1)) is not writer
    with writer.begin() as connection:
        SessionTx.on(connection, session_id="s").put_blob(b"y")


def test_k_tx_8_what_a_view_of_an_engine_is_made_of() -> None:
    """SQLAlchemy says so nowhere: a view has the listeners of the engine that is its ``_proxied``."""
    engine = create_engine("sqlite://")
    heard: list[Any] = []
    event.listen(engine, "begin", heard.append)
    view: Any = engine.execution_options(tenant="a")
    assert (view._proxied, view.dialect) == (engine, engine.dialect)
    with view.begin():
        pass
    assert len(heard) == 1
    engine.dispose()


def test_k_tx_8_reads_are_snapshots_and_writes_are_declared(path: Path) -> None:
    SessionStore.open(path, session_id="s").close()
    engine = configure(create_engine(f"sqlite:///{path}"), begin="read", busy_timeout_ms=50)
    writes = {"lash_store_write": True}
    with engine.begin() as one, engine.begin() as two:  # neither waits for the other
        for connection in (one, two):
            tx = SessionTx.on(connection, session_id="s")
            assert tx.current_lease() is None
            with pytest.raises(ReadOnlyStoreError):
                tx.claim_lease(owner_id="ann", ttl_ms=60_000)
        with engine.execution_options(**writes).begin() as connection:
            SessionTx.on(connection, session_id="s").claim_lease(owner_id="ann", ttl_ms=60_000)
            with pytest.raises(StoreBusyError), engine.execution_options(**writes).begin():
                pass
    with engine.begin() as connection:
        assert SessionTx.on(connection, session_id="s").current_lease() is not None
    engine.dispose()


def test_k_tx_8_configure_checks_what_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidRecordError, match="begin"):
        configure(create_engine("sqlite://"), begin="later")  # type: ignore[arg-type] # reason: that is the test
    for engine in (
        create_engine("sqlite://", isolation_level="AUTOCOMMIT"),
        create_engine("sqlite://").execution_options(isolation_level="AUTOCOMMIT"),
    ):
        compiler = engine.dialect.statement_compiler
        with pytest.raises(NotConfiguredError, match="AUTOCOMMIT"):
            configure(engine)
        assert engine.dialect.statement_compiler is compiler
    monkeypatch.setattr("sqlite3.sqlite_version_info", (3, 34, 1))
    with pytest.raises(StoreOpenError, match="RETURNING"):
        configure(create_engine("sqlite://"))


def test_k_tx_8_what_is_no_clock_or_has_no_ids_is_refused() -> None:
    engine = configure(create_engine("sqlite://"))
    joins: list[Any] = [partial(SessionTx.on, session_id="s"), EffectTx.on, ProcessTx.on]
    with engine.begin() as connection:
        for on in joins:
            with pytest.raises(InvalidRecordError, match="clock"):
                on(connection, clock=3)
            with pytest.raises(InvalidRecordError, match="ids"):
                on(connection, ids=3)
        assert not connection.execute(text("SELECT * FROM sqlite_schema")).all()
    engine.dispose()


@pytest.mark.posix("there is no itimer")
def test_k_tx_10_a_configured_engine_hides_no_interrupt(engine: Engine) -> None:
    def interrupt(_: int, __: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    long = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000000) SELECT count(*) FROM n"

    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt), engine.begin() as connection:
            connection.execute(text(long))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    with engine.begin() as connection:
        assert SessionTx.on(connection, session_id="s").load_head() is None


def test_k_tx_8_what_sqlite_has_rolled_back_is_not_committed_in_silence(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE numbers (id INTEGER PRIMARY KEY)"))
        connection.execute(text("INSERT INTO numbers VALUES (1)"))
        SessionTx.on(connection, session_id="s")
    with pytest.raises(TransactionEndedError, match="nothing of it is kept"):
        with engine.begin() as connection:
            SessionTx.on(connection, session_id="s").enqueue_work(NewWork([1]))
            with pytest.raises(IntegrityError):
                connection.execute(text("INSERT OR ROLLBACK INTO numbers VALUES (1)"))
    with engine.begin() as connection:
        assert SessionTx.on(connection, session_id="s").work_depth().batches == 0
