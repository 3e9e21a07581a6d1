"""K-TX-7: what a consumer can do with ``tx.connection``, and all that is refused."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, exc, func, insert, select, text, update
from sqlalchemy.engine.base import RootTransaction
from sqlalchemy.engine.default import DefaultDialect, DefaultExecutionContext
from sqlalchemy.orm import DeclarativeBase, Mapped, Session

from lash_store import Deployment, NewWork, SessionStore
from lash_store._backends.sqlite.dialect import check_no_control
from lash_store._kernel.observing import Event, observed_by
from lash_store.errors import (
    InvalidRecordError,
    StorageError,
    TransactionControlError,
    TransactionEndedError,
)
from lash_store.session.statements import cancel_work, load_work
from lash_store.session.tables import blobs
from tests.support.databases import all_rows
from tests.support.sessions import lease_of

BLOB = text("INSERT INTO blobs VALUES ('h', :content)").bindparams(content=b"\0")


def raw(connection: Connection) -> Any:
    return connection.connection.dbapi_connection


def leave_with(connection: Connection) -> None:
    with connection:
        connection.execute(text("SELECT 1"))


def begin_and_leave(connection: Connection) -> None:
    with connection.engine.begin() as second:
        second.execute(text("SELECT 1"))


def second_connection(connection: Connection, how: str) -> None:
    second = connection.engine.connect()
    second.execute(text("SELECT 1"))
    getattr(second, how)()


def with_raw(connection: Connection) -> None:
    with raw(connection):
        pass


def set_isolation_level(connection: Connection) -> None:
    raw(connection).isolation_level = None


def set_autocommit(connection: Connection) -> None:
    raw(connection).autocommit = True  # commits, from Python 3.12 on


def cursor_commit(connection: Connection) -> None:
    raw(connection).cursor().connection.commit()


ENDINGS: dict[str, Callable[[Connection], object]] = {
    "commit": lambda c: c.commit(),
    "rollback": lambda c: c.rollback(),
    "close": lambda c: c.close(),
    "with": leave_with,
    "invalidate": lambda c: c.invalidate(),
    "detach": lambda c: c.detach(),
    "transaction.commit": lambda c: c.get_transaction().commit(),  # type: ignore[union-attr] # reason: there is one
    "transaction.rollback": lambda c: c.get_transaction().rollback(),  # type: ignore[union-attr] # reason: there is one
    "transaction.close": lambda c: c.get_transaction().close(),  # type: ignore[union-attr] # reason: there is one
    "engine.begin": begin_and_leave,
    "second commit": lambda c: second_connection(c, "commit"),
    "second rollback": lambda c: second_connection(c, "rollback"),
    "second close": lambda c: second_connection(c, "close"),
    "fairy.commit": lambda c: c.connection.commit(),
    "fairy.rollback": lambda c: c.connection.rollback(),
    "dbapi.commit": lambda c: raw(c).commit(),
    "dbapi.rollback": lambda c: raw(c).rollback(),
    "dbapi.close": lambda c: raw(c).close(),
    "dbapi with": with_raw,
    "dbapi.executescript": lambda c: raw(c).executescript("SELECT 1"),
    "dbapi.isolation_level": set_isolation_level,
    "dbapi.autocommit": set_autocommit,
    "dbapi.set_authorizer": lambda c: raw(c).set_authorizer(None),
    "dbapi.deserialize": lambda c: raw(c).deserialize(b""),
    "cursor.connection.commit": cursor_commit,
    **{
        words: lambda c, words=words: c.execute(text(words))  # type: ignore[misc] # reason: bound per entry
        for words in ("COMMIT", "commit;", "END", "END TRANSACTION", "ROLLBACK", "/* x */ COMMIT")
    },
    "COMMIT by the driver": lambda c: c.exec_driver_sql("COMMIT"),
}


PASSED_OVER = ("", " ", "\n", ";", "\ufeff", "-- x\n", "/* x */", "/* /* */ ;", "--\n\t/**/")
WORDS = ("COMMIT", "end", "Begin", "BEGIN IMMEDIATE", "ROLLBACK", "ROLLBACK TRANSACTION", "END;",
         "ROLLBACK TO x", "rollback/**/ transaction to savepoint x", "ROLLBACK TRANSACTION\n TO x",
         "SAVEPOINT x", "RELEASE x", "SELECT 1", "COMMITTED", "VALUES ('COMMIT')", "EXPLAIN COMMIT",
         "SELECT 'x' -- COMMIT", "/* COMMIT */ SELECT 1", "WITH a AS (SELECT 1) SELECT * FROM a",
         "ROLLBACK -- TO x\n", "commit transaction", "ROLLBACK /* TO x */")  # fmt: skip


@pytest.mark.parametrize("before", PASSED_OVER)
@pytest.mark.parametrize("words", WORDS)
def test_k_tx_7_what_ends_a_transaction_is_seen_as_sqlite_sees_it(before: str, words: str) -> None:
    """SQLite's own parser is the oracle: it names what a statement does when it is prepared."""
    seen: list[int] = []

    def authorise(action: int, *_: object) -> int:
        seen.append(action)
        return sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_TRANSACTION else sqlite3.SQLITE_OK

    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("SAVEPOINT x")
        connection.set_authorizer(authorise)
        with suppress(sqlite3.Error, sqlite3.Warning):
            connection.execute(before + words)
    ends = sqlite3.SQLITE_TRANSACTION in seen and not words.startswith("EXPLAIN")
    try:
        check_no_control(before + words)
    except TransactionControlError:
        refused = True
    else:
        refused = False
    assert refused == ends or (";" in before and refused)  # of several, the driver runs none


@pytest.mark.parametrize("how", ENDINGS)
@pytest.mark.parametrize("used", [False, True], ids=["at once", "after a statement"])
def test_k_tx_7_no_way_to_end_the_transaction(
    store: SessionStore, path: Path, how: str, used: bool
) -> None:
    """Refused with our error, nothing is lost, and nothing is kept before the block ends."""
    before = all_rows(path)
    with store.begin() as tx:
        lease = tx.claim_lease(owner_id="ann", ttl_ms=60_000)
        connection = tx.connection
        if used:
            connection.execute(BLOB)
        with pytest.raises(TransactionControlError):
            ENDINGS[how](connection)
        assert all_rows(path) == before  # seen from outside: not committed
        assert tx.current_lease() == lease  # seen from inside: not rolled back
        if not used:
            tx.connection.execute(BLOB)
    after = all_rows(path)
    assert after["blobs"] == [("h", b"\0")]
    assert len(after["session_execution_leases"]) == 1
    store.claim_lease(owner_id="ann", ttl_ms=1)


@pytest.mark.parametrize("how", ENDINGS)
def test_k_tx_7_a_refusal_that_is_not_caught_rolls_back(
    store: SessionStore, path: Path, how: str
) -> None:
    before = all_rows(path)
    with pytest.raises(TransactionControlError), store.begin() as tx:
        tx.connection.execute(BLOB)
        ENDINGS[how](tx.connection)
    assert all_rows(path) == before
    store.claim_lease(owner_id="ann", ttl_ms=1)


def test_k_tx_7_beginning_another_transaction_is_refused(store: SessionStore, path: Path) -> None:
    with store.begin() as tx:
        tx.connection.execute(BLOB)
        for words in ("BEGIN", "BEGIN IMMEDIATE"):
            with pytest.raises(TransactionControlError):
                tx.connection.execute(text(words))
        with pytest.raises(exc.InvalidRequestError):
            tx.connection.begin()
    assert len(all_rows(path)["blobs"]) == 1


@pytest.mark.parametrize("how", ["COMMIT", "ROLLBACK"])
def test_k_tx_7_a_snapshot_can_not_be_ended_either(store: SessionStore, how: str) -> None:
    with store.read() as tx:
        with pytest.raises(TransactionControlError):
            tx.connection.execute(text(how))
        with pytest.raises(TransactionControlError):
            getattr(tx.connection, how.lower())()
        assert tx.current_lease() is None


def test_k_tx_7_savepoints_work(store: SessionStore, path: Path) -> None:
    with store.begin() as tx:
        with tx.connection.begin_nested():
            tx.connection.execute(insert(blobs).values(hash="kept", content=b""))
        with pytest.raises(ZeroDivisionError), tx.connection.begin_nested():
            tx.connection.execute(insert(blobs).values(hash="undone", content=b""))
            raise ZeroDivisionError
        savepoint = tx.connection.begin_nested()
        tx.connection.execute(insert(blobs).values(hash="undone too", content=b""))
        savepoint.rollback()
        tx.claim_lease(owner_id="ann", ttl_ms=1)
    rows = all_rows(path)
    assert rows["blobs"] == [("kept", b"")]
    assert len(rows["session_execution_leases"]) == 1


class Base(DeclarativeBase):
    pass


class Blob(Base):
    __table__ = blobs
    hash: Mapped[str]
    content: Mapped[bytes]


def test_k_tx_7_an_orm_session_on_the_connection_works(store: SessionStore, path: Path) -> None:
    with store.begin() as tx:
        with Session(tx.connection) as session:
            session.add(Blob(hash="orm", content=b"1"))
            session.commit()  # flushes; the store commits
            assert session.scalars(select(Blob)).one().content == b"1"
        with Session(tx.connection) as session, session.begin():
            session.add(Blob(hash="orm 2", content=b"2"))
        assert all_rows(path)["blobs"] == []
    assert [row[0] for row in all_rows(path)["blobs"]] == ["orm", "orm 2"]


def test_k_tx_7_an_orm_session_is_undone_with_the_transaction(
    store: SessionStore, path: Path
) -> None:
    with pytest.raises(ZeroDivisionError), store.begin() as tx:
        with Session(tx.connection) as session:
            session.add(Blob(hash="orm", content=b"1"))
            session.commit()
        raise ZeroDivisionError
    assert all_rows(path)["blobs"] == []


def test_k_tx_7_a_swallowed_constraint_error_costs_one_statement(
    store: SessionStore, path: Path
) -> None:
    with store.begin() as tx:
        tx.connection.execute(BLOB)
        with pytest.raises(exc.IntegrityError):
            tx.connection.execute(BLOB)
        tx.claim_lease(owner_id="ann", ttl_ms=1)
    rows = all_rows(path)
    assert (len(rows["blobs"]), len(rows["session_execution_leases"])) == (1, 1)


@pytest.mark.parametrize("how", ["begin", "read"])
@pytest.mark.parametrize("driver", ["sqlalchemy", "cursor", "execute"])
def test_k_tx_7_results_still_open_are_closed_before_the_end(
    store: SessionStore, how: str, driver: str
) -> None:
    with store.begin() as tx:
        rows = [{"hash": str(at), "content": b""} for at in range(10)]
        tx.connection.execute(insert(blobs), rows)
    query = "SELECT hash FROM blobs"
    with getattr(store, how)() as tx:
        if driver == "sqlalchemy":
            result: Any = tx.connection.execute(text(query))
        elif driver == "cursor":
            result = raw(tx.connection).cursor().execute(query)
        else:
            result = raw(tx.connection).execute(query)
        assert result.fetchone() is not None
    with pytest.raises((TransactionEndedError, exc.ResourceClosedError)):
        result.fetchall()
    store.claim_lease(owner_id="ann", ttl_ms=1)
    with store.read() as tx:
        assert tx.connection.scalar(text("SELECT count(*) FROM blobs")) == 10


@pytest.mark.sqlite("a statement that has begun keeps a savepoint from beginning there")
def test_k_tx_7_a_result_that_changes_rows_is_named_where_it_is_in_the_way(
    store: SessionStore, path: Path
) -> None:
    """Nothing was waited for, and trying again does not help."""
    store.put_blob(b"x")
    store.put_blob(b"y")
    before = all_rows(path)
    with store.begin() as tx:
        changing = update(blobs).values(hash="h" + blobs.c.hash).returning(blobs.c.hash)
        result = tx.connection.execute(changing)
        assert result.fetchone() is not None
        with pytest.raises(StorageError, match="a result that changes rows is open"):
            tx.enqueue_work(NewWork([1]))
        result.close()
        tx.enqueue_work(NewWork([1]))
        tx.connection.execute(update(blobs).values(hash=func.substr(blobs.c.hash, 2)))
    assert all_rows(path)["blobs"] == before["blobs"]
    assert len(store.list_work()) == 1


def test_k_tx_7_a_returning_cursor_still_open_does_not_block_commit(
    store: SessionStore, path: Path
) -> None:
    with store.begin() as tx:
        cursor = raw(tx.connection).cursor()
        cursor.execute("INSERT INTO blobs VALUES ('a', x''), ('b', x'') RETURNING hash")
        assert cursor.fetchone() == ("a",)
    assert len(all_rows(path)["blobs"]) == 2


@pytest.mark.parametrize("how", ["begin", "read"])
def test_k_tx_7_a_connection_that_was_kept_is_of_no_use(
    store: SessionStore, path: Path, how: str
) -> None:
    with getattr(store, how)() as tx:
        kept, driver = tx.connection, raw(tx.connection)
        second = kept.engine.connect()
    before = all_rows(path)
    with pytest.raises(exc.ResourceClosedError):
        kept.execute(BLOB)
    uses: list[Callable[[], object]] = [
        lambda: driver.execute("INSERT INTO blobs VALUES ('h', '0')"),
        lambda: second.execute(BLOB),
    ]
    for use in uses:
        with pytest.raises(TransactionEndedError):
            use()
    assert all_rows(path) == before


def test_k_tx_7_statements_and_operations_see_each_other(store: SessionStore) -> None:
    with store.begin() as tx:
        lease = tx.claim_lease(owner_id="ann", ttl_ms=60_000)
        token = "SELECT lease_token FROM session_execution_leases"
        assert tx.connection.scalar(text(token)) == lease.fence.token  # type: ignore[union-attr] # reason: it was free
        tx.connection.execute(text("DELETE FROM session_execution_leases"))
        assert tx.current_lease() is None
        assert tx.connection is tx.connection
        assert tx.connection.scalar(text("SELECT 'abc' REGEXP 'b'")) == 1


def test_k_tx_7_a_cursor_runs_nothing_after_its_transaction_is_over(
    store: SessionStore, path: Path
) -> None:
    """SQLite rolled it back; what the cursor ran then would commit by itself."""
    before = all_rows(path)
    with pytest.raises(TransactionEndedError), store.begin() as tx:
        cursor = raw(tx.connection).cursor()
        cursor.execute("INSERT INTO blobs VALUES ('h', x'00')")
        with pytest.raises(sqlite3.IntegrityError):
            cursor.execute("INSERT OR ROLLBACK INTO blobs VALUES ('h', x'00')")
        for run in (cursor.execute, lambda sql: cursor.executemany(sql, [()])):
            with pytest.raises(TransactionEndedError):
                run("INSERT INTO blobs VALUES ('leaked', x'00')")
    assert all_rows(path) == before


def test_k_tx_2_a_connection_that_was_given_back_does_not_stop_the_commit(
    store: SessionStore, path: Path
) -> None:
    with store.begin() as tx:
        tx.connection.execute(BLOB)
        tx.connection.connection.close()
    assert len(all_rows(path)["blobs"]) == 1
    store.claim_lease(owner_id="ann", ttl_ms=1)


@pytest.mark.canonical("writes to a view of the tests own")
def test_no_token_is_shown_by_the_error_of_a_fenced_statement(store: SessionStore) -> None:
    lease = store.claim_lease(owner_id="ann", ttl_ms=60_000)
    fence: Any = lease.fence  # type: ignore[union-attr] # reason: it is free
    with store.begin() as tx, pytest.raises(exc.IntegrityError) as failure:
        source = select(blobs.c.hash, blobs.c.content).where(fence.holds(now_ms=tx.now_ms))
        tx.connection.execute(BLOB)
        tx.connection.execute(insert(blobs).from_select(["hash", "content"], source))
    assert fence.token not in str(failure.value)
    with pytest.raises(InvalidRecordError) as refusal:
        store.renew_lease(fence.token, ttl_ms=1)
    assert fence.token not in str(refusal.value)


@pytest.mark.parametrize("when", ["before", "after"])
def test_k_tx_10_an_interrupt_in_a_consumers_statement_is_that_interrupt(
    store: SessionStore, path: Path, when: str
) -> None:
    """SQLAlchemy would invalidate the connection, and the interrupt must not become our refusal."""

    class Interrupts:
        def before(self, _: Event) -> None:
            if when == "before":
                raise KeyboardInterrupt

        def after(self, _: Event) -> None:
            if when == "after":
                raise KeyboardInterrupt

    before = all_rows(path)
    with pytest.raises(KeyboardInterrupt), store.begin() as tx:
        tx.put_blob(b"x")
        connection = tx.connection
        with observed_by(Interrupts()):
            connection.execute(text("SELECT 1"))
    assert all_rows(path) == before
    store.put_blob(b"y")
    with store.begin() as tx, pytest.raises(TransactionControlError):
        tx.connection.invalidate()


@pytest.mark.parametrize("write", [True, False])
def test_k_tx_10_an_interrupt_as_a_consumers_connection_closes_is_that_interrupt(
    store: SessionStore, path: Path, monkeypatch: pytest.MonkeyPatch, *, write: bool
) -> None:
    """SQLAlchemy asserts then what it has not come to, and that would be raised in its place."""
    struck: list[object] = []
    closing_it = RootTransaction._deactivate_from_connection

    def strike(self: RootTransaction) -> None:
        if not struck:
            struck.append(self)
            signal.raise_signal(signal.SIGINT)
        closing_it(self)

    before = all_rows(path)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job may ignore it
    try:
        with monkeypatch.context() as patched:
            patched.setattr(RootTransaction, "_deactivate_from_connection", strike)
            with pytest.raises(KeyboardInterrupt), store.begin() if write else store.read() as tx:
                if write:
                    tx.put_blob(b"x")
                tx.connection.execute(text("SELECT 1"))
    finally:
        signal.signal(signal.SIGINT, handler)
    assert struck
    assert all_rows(path) == before
    store.put_blob(b"y")


def test_k_tx_10_what_a_handler_raises_as_a_consumers_connection_opens_is_that_error(
    store: SessionStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLAlchemy rolls back then, which is no consumer's doing, and is refused to one."""

    class ShutdownError(Exception):
        pass

    def strike(*_: object) -> None:
        raise ShutdownError

    with monkeypatch.context() as patched:
        patched.setattr(DefaultDialect, "do_begin", strike)
        with store.begin() as tx:
            tx.put_blob(b"x")
            with pytest.raises(ShutdownError):
                tx.connection.scalar(text("SELECT 1"))
            tx.put_blob(b"y")
    assert len(all_rows(path)["blobs"]) == 2  # nothing was rolled back
    with store.begin() as tx:
        assert tx.connection.scalar(text("SELECT 1")) == 1


def test_k_tx_10_what_a_handler_raises_in_a_listing_is_that_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Shutdown(Exception):  # noqa: N818 # reason: a stand-in for an application's own
        pass

    def handle(*_: object) -> None:
        raise Shutdown

    struck: list[object] = []
    binding: Any = DefaultExecutionContext._init_compiled

    def strike(_: Any, *given: Any, **options: Any) -> Any:
        if not struck:
            struck.append(given)
            signal.raise_signal(signal.SIGTERM)
        return binding(*given, **options)

    with Deployment.open(f"sqlite:///{tmp_path / 'app.db'}") as deployment:
        deployment.sessions.create("s", model="m").close()
        before = signal.signal(signal.SIGTERM, handle)
        try:
            with monkeypatch.context() as patched:
                patched.setattr(DefaultExecutionContext, "_init_compiled", classmethod(strike))
                with pytest.raises(Shutdown):
                    deployment.sessions.list()
        finally:
            signal.signal(signal.SIGTERM, before)
        assert struck
        assert len(deployment.sessions.list()) == 1


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(2**70, marks=pytest.mark.sqlite("a server has numbers of that size")),
        "\ud800",
        object(),
        [object()],
    ],
    ids=["int", "text", "object", "list"],
)
def test_k_tx_7_what_no_statement_can_hold_is_refused_as_that(
    store: SessionStore, value: Any
) -> None:
    """Of a consumer's cursor; and what was done before in the transaction stays."""
    with store.begin() as tx:
        tx.enqueue_work(NewWork(["kept"]))
        with pytest.raises(InvalidRecordError, match="parameters"):
            load_work.one(tx.cursor, batch_id=value)
            cancel_work.run(tx.cursor, batch_id="b", now_ms=value)
        assert len(tx.list_work()) == 1
    assert len(store.list_work()) == 1


def test_k_lease_6_a_predicate_is_about_a_time(store: SessionStore) -> None:
    lease = lease_of(store)
    with store.begin() as tx, tx.orm() as orm:
        given: Any = orm
        with pytest.raises(InvalidRecordError, match="now_ms"):
            lease.fence.holds(given)


def test_k_open_12_what_was_closed_leaves_nothing_behind(tmp_path: Path) -> None:
    """Of an engine over one connection, SQLAlchemy keeps what listens to it as long as its dialect."""
    listening: list[int] = []
    for number in range(5):
        with SessionStore.open(tmp_path / f"{number}.db", session_id="s") as store:
            with store.begin() as tx:
                tx.connection.execute(text("SELECT 1"))
                listening.append(len(list(tx.connection.dialect.dispatch.handle_error)))
    assert set(listening) == {listening[0]}
