"""A consumer's own engine on PostgreSQL, prepared so that a Tx can join its transactions (K-TX-8).

Whoever joins takes its lock then, and reads the clock: what it reads before is not what it decides
by. So a transaction under REPEATABLE READ, whose snapshot may be older than the lock, is refused: it
would lose what others have committed in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from threading import get_ident
from typing import Any, Final
from weakref import WeakKeyDictionary

import psycopg
from sqlalchemy import Connection, ExceptionContext, TwoPhaseTransaction, event

from lash_store._backends.beginning import (
    BEGUN,
    Mode,
    beginning_again,
    forget_savepoint,
    mode_of,
    no_transaction,
    note_savepoint,
    nothing_kept,
)
from lash_store._backends.orm_sessions import check_joined
from lash_store._backends.postgresql import dialect, guard
from lash_store._backends.postgresql.begun import Begun, driver_connection, raw_of
from lash_store._backends.postgresql.driver import (
    StoreCursor,
    code_of,
    consumer_error,
    first_line,
    open_cursor,
    opening_error,
)
from lash_store._backends.postgresql.joined_locks import (
    LIMIT,
    be_durable,
    limit_of,
    lock_again,
    lock_all,
    take,
)
from lash_store._backends.postgresql.locks import locks_of
from lash_store._backends.scoping import use_sharing
from lash_store._backends.tx_connection import explaining
from lash_store._backends.urls import without_password
from lash_store._kernel.backend import Standing
from lash_store._kernel.checks import check_now
from lash_store._kernel.extras import OwnTables
from lash_store._kernel.logs import tell
from lash_store._kernel.options import Settings
from lash_store._kernel.schema import Schema
from lash_store._kernel.sharing import SCOPES, shared
from lash_store._kernel.watching import Concern
from lash_store.clock import Clock, SystemClock
from lash_store.errors import (
    ConnectionLostError,
    NotConfiguredError,
    ThreadError,
)

_INFO_PLACES: Final = "lash_store_places"

_lost: Final[WeakKeyDictionary[Connection, Begun]] = WeakKeyDictionary()
"""Transactions that can't be rolled back any more, as a Tx in them has said."""

_HOW: Final = (
    "SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only'), "
    "current_schema()"
)
_explain: Final = explaining(consumer_error, without_password)


class JoinedTransaction:
    """A consumer's transaction, as one Tx stands on it."""

    key_locks: None = None
    is_shared = True

    def __init__(self, begun: Begun, connection: Connection, cursor: StoreCursor) -> None:
        self.own_cursor = cursor
        self.standing: Standing | None = None
        self.touched: set[Concern] = set()  # which nobody hears of: it is seen as another's commit
        self.notes = begun.notes
        self.savepoints = begun.savepoints
        self.path = _path_of(connection)
        self._begun = begun
        self._connection = connection
        self._thread = get_ident()
        self._looks_first = begun.looks_first

    @property
    def in_transaction(self) -> bool:
        """Whether it is still open, and can be spoken to."""
        if self._begun.is_anothers:
            return True
        status = self._begun.raw.info.transaction_status
        return not (self._begun.is_torn or self._begun.was_ended) and status in (
            psycopg.pq.TransactionStatus.INTRANS,
            psycopg.pq.TransactionStatus.INERROR,
        )

    def further_cursor(
        self, schema: Schema, scope: str, key: tuple[str, ...] | None = None
    ) -> StoreCursor:
        """Open one more cursor on this transaction, once it has the locks and the tables of that Tx."""
        return _held(self._connection, self._begun, schema, scope, key)

    def check_thread(self) -> None:
        """Raise ThreadError in any thread but the one that joined it."""
        if self._thread != get_ident():
            raise ThreadError(self._thread, get_ident())
        if self._begun.looks_elsewhere and self._begun.settings.schema is None:
            self._check_place()
        if lapsed := self._begun.held.lapsed:
            lock_again(self._begun, self.own_cursor, lapsed, self.path)

    def _check_place(self) -> None:
        ((now,),) = _executed(self.own_cursor, dialect.LOOKS_FIRST)
        if now != self._looks_first:
            raise NotConfiguredError(
                f"this transaction on {self.path!r} looked into the schema {self._looks_first!r} first as this "
                f"Tx joined it, and looks into {now!r} now: join it there, or configure the engine with a schema"
            )

    def admit(self, sql: str) -> None:
        """Raise TransactionControlError for a statement that would end it; note one that frees locks."""
        dialect.check_no_control(sql)
        self._begun.note(sql)

    def now_ms(self, clock: Clock) -> int:
        """Read the server's clock, behind the lock; of another clock than the system's its own."""
        if type(clock) is not SystemClock:
            return check_now(clock.now_ms())
        rows = _executed(self.own_cursor, dialect.NOW)
        return int(rows[0][0])

    def consumer_connection(self, scope: str) -> Connection:  # noqa: ARG002 # reason: it has its own
        """Return the consumer's own Connection."""
        return self._connection


def configure(engine: Any, settings: Settings, undeclared: Mode) -> None:
    """Prepare an engine on PostgreSQL; see :func:`lash_store.configure`."""
    engine = getattr(engine, "sync_engine", engine)
    if engine.dialect.driver not in ("psycopg", "psycopg_async"):
        raise NotConfiguredError(
            f"{engine!r} can't be configured: it has to be on postgresql+psycopg, whose driver a "
            "Tx's statements are written for"
        )
    guard.check_settings(settings)

    def begun(connection: Connection) -> None:
        _begin(connection, settings, undeclared)

    sharing = use_sharing(engine.dialect, dialect.PostgresqlSharingCompiler)
    sharing.prefix, sharing.schema = settings.prefix, settings.schema
    event.listen(engine, "begin", beginning_again(begun))
    event.listen(engine, "commit", _committed)
    event.listen(engine, "rollback", _rolled_back)
    event.listen(engine, "savepoint", note_savepoint)
    event.listen(engine, "rollback_savepoint", forget_savepoint)
    event.listen(engine, "after_cursor_execute", _note_rollback)
    event.listen(engine, "handle_error", _explain)
    event.listen(engine, "handle_error", _explain_end)


def join(session: Any, connection: Connection, schema: Schema, scope: str) -> JoinedTransaction:
    """Join the transaction that is open on `connection`; see ``_backends.joining``."""
    begun = BEGUN.get(connection)
    if isinstance(connection.get_transaction(), TwoPhaseTransaction):
        raise NotConfiguredError(
            f"{connection!r} is in a two-phase transaction, which may end anywhere and long after this: "
            "its locks and what waits for its commit could not be told of that; begin an ordinary one"
        )
    if not isinstance(begun, Begun) or not connection.in_transaction():
        raise no_transaction(connection)
    if driver_connection(connection).autocommit:
        raise NotConfiguredError(
            f"{connection!r} is in autocommit, by its driver: it has no transactions to join"
        )
    if schema.is_scoped and hasattr(session, "identity_map"):
        check_joined(getattr(session, "sync_session", session), scope)
    cursor = _held(connection, begun, schema, scope)
    joined = JoinedTransaction(begun, connection, cursor)
    begun.joined.append(joined)
    return joined


def create_tables(connection: Connection, schemas: Sequence[Schema], settings: Settings) -> None:
    """Make our tables in the transaction of a consumer's own connection, whoever began it."""
    guard.check_settings(settings)
    if connection.get_transaction() is None:
        connection.begin()
    path, begun = _path_of(connection), BEGUN.get(connection)
    budget_ms = (settings if begun is None else begun.settings).busy_timeout_ms
    # Where a Tx on this connection will look for them.
    where = settings.schema or (None if begun is None else begun.settings.schema)
    raw = raw_of(connection)
    cursor = open_cursor(raw, settings.prefix, where)
    try:
        # In AUTOCOMMIT a transaction of its own: locks and settings last for one, and it is all or nothing.
        with raw.transaction() if raw.autocommit else nullcontext():
            place = guard.server_place(cursor, path, where)
            wanted = [shared(schema, settings.prefix) for schema in schemas]
            # All are looked at first: a refusal leaves nothing of the others behind.
            lacks = [guard.needs_making(cursor, schema, path, place) for schema in wanted]
            isolation = cursor.execute(_HOW).fetchall()[0][0]
            if any(lacks) and isolation != "read committed":
                raise NotConfiguredError(
                    f"{connection!r} is in {isolation.upper()}: its snapshot may be older than tables that "
                    "another one has just made; tables are made in READ COMMITTED"
                )
            for schema in wanted:
                guard.ensure_schema(
                    cursor,
                    schema,
                    path,
                    place,
                    lambda cursor, lock: take(lock, cursor, budget_ms, path),
                )
    except psycopg.Error as error:
        raise opening_error(error, cursor.connection, where, path) from error


def stamp_tables(connection: Connection, own: OwnTables, settings: Settings) -> None:  # noqa: ARG001 # reason: the other database's
    """Refuse: on a server an application's own tables are its migrations' affair."""
    raise NotConfiguredError(
        f"{connection!r}: tables of an application's own are not versioned on PostgreSQL ({own.name!r})"
    )


def _held(
    connection: Connection,
    begun: Begun,
    schema: Schema,
    scope: str,
    key: tuple[str, ...] | None = None,
) -> StoreCursor:
    """Return a cursor for a Tx, once the transaction has its lock and its tables."""
    settings, path = begun.settings, _path_of(connection)
    cursor = open_cursor(begun.raw, settings.prefix, settings.schema)
    cursor.path, cursor.note_lost = path, begun.note_lost
    try:
        place, compared = _look(connection, begun, cursor, path)
        wanted = shared(schema, settings.prefix)
        if begun.mode == "write":
            locks = locks_of(f"{place}.{settings.prefix}", wanted, scope, key)
            lock_all(begun, cursor, locks, path)
            be_durable(begun, cursor)
        is_known = wanted in compared or (place, wanted) in begun.compared
        writes = begun.mode == "write"
        if not is_known and guard.hold(
            cursor,
            wanted,
            path,
            place,
            writes=writes,
            take=lambda cursor, lock: lock_all(begun, cursor, [lock], path),
        ):
            # What is there may have been made in this transaction, and be undone with it.
            begun.compared[place, wanted] = compared
            if not writes:
                compared.add(wanted)
    except psycopg.Error as error:
        if isinstance(error, psycopg.errors.InsufficientPrivilege):
            raise opening_error(error, cursor.connection, settings.schema, path) from error
        raise cursor.driver.explain(error, cursor) from error
    if schema.is_scoped:
        connection.info[SCOPES].add(scope)
    own = open_cursor(begun.raw, settings.prefix, settings.schema)
    own.path = path
    own.note_lost = begun.note_lost
    return own


def _look(
    connection: Connection, begun: Begun, cursor: StoreCursor, path: str
) -> tuple[str, set[Schema]]:
    """Return where our tables are, and which of them were compared there; see what only reads.

    By then the application may look into another schema than before, that of another tenant, say.
    Refuses a transaction in which what is read may be older than a lock.
    """
    if begun.raw.info.encoding != "utf-8":
        raise NotConfiguredError(
            f"{connection!r} talks to its server in {begun.raw.info.encoding}, which can't spell every text: "
            "give its engine client_encoding=utf8"
        )
    limit = limit_of(begun.settings.busy_timeout_ms)
    found = cursor.execute(f"{_HOW}, {LIMIT}", (limit,)).fetchall()
    isolation, read_only, current, _ = found[0]
    if read_only == "on" and isolation == "read committed":
        raise NotConfiguredError(
            f"{connection!r} only reads, in READ COMMITTED: each statement would see another state, and "
            "what a Tx reads is one; give it REPEATABLE READ"
        )
    if read_only == "on":
        begun.mode = "read"
    elif isolation != "read committed":
        raise NotConfiguredError(
            f"{connection!r} is in {isolation.upper()}: its snapshot may be older than the lock that "
            "a Tx takes, and what others have committed in between would be lost; a transaction that "
            "writes has to be in READ COMMITTED"
        )
    places: dict[str | None, tuple[str, set[Schema]]] = connection.info.setdefault(_INFO_PLACES, {})
    begun.looks_first = current
    seen = begun.settings.schema or current
    if seen not in places:
        places[seen] = guard.server_place(cursor, path, begun.settings.schema), set()
    return places[seen]


def _note_rollback(connection: Connection, _: Any, statement: str, *__: Any) -> None:
    begun = BEGUN.get(connection)
    if begun is not None:
        begun.note(statement)
        begun.was_ended = begun.was_ended or dialect.ends_transaction(statement)


def _executed(cursor: StoreCursor, statement: str) -> Any:
    try:
        return cursor.execute(statement).fetchall()
    except psycopg.Error as error:
        raise cursor.driver.explain(error, cursor) from error


def _path_of(connection: Connection) -> str:
    return without_password(connection.engine.url)


def _begin(connection: Connection, settings: Settings, undeclared: Mode) -> None:
    mode = mode_of(connection, undeclared)
    if mode is None:
        return
    _lost.pop(connection, None)
    BEGUN[connection] = Begun(raw_of(connection), mode, settings)
    connection.info[SCOPES] = set()
    if mode == "read":
        # The driver begins with the first statement: this one is that.
        connection.exec_driver_sql(
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",
            execution_options={"stream_results": False, "yield_per": None},  # the application's are
        )


def _committed(connection: Connection) -> None:
    begun = BEGUN.get(connection)
    _end(connection)
    if begun is not None and begun.joined and begun.has_ended:
        begun.raw.rollback()  # SQLAlchemy counts it as ended, and would give its connection back as it is
        raise nothing_kept(_path_of(connection))
    if begun is not None:
        for (_, schema), compared in begun.compared.items():
            compared.add(schema)
        tell(begun.notes)


def _rolled_back(connection: Connection) -> None:
    begun = BEGUN.get(connection)
    _end(connection)
    if begun is not None and begun.is_torn and not connection.invalidated:
        connection.invalidate()  # an interrupt struck: it could not even be rolled back


def _end(connection: Connection) -> None:
    begun = BEGUN.pop(connection, None)
    if not connection.invalidated:
        connection.info.pop(SCOPES, None)
    if begun is None:
        return
    if begun.is_lost:
        _lost[connection] = begun
    for joined in begun.joined:
        if joined.standing is not None:
            joined.standing.abandon()


def _explain_end(context: ExceptionContext) -> None:
    """Say of a transaction that can't be undone any more what a Tx in it has said, its connection being lost.

    What a refused COMMIT was to keep is forgotten: SQLAlchemy tells of one before it is sent.
    """
    if context.statement is None and context.connection is not None:
        if not (context.is_disconnect or context.connection.invalidated):
            context.connection.info.pop(_INFO_PLACES, None)
        begun = _lost.pop(context.connection, None)
        if begun is not None:
            path, error = _path_of(context.connection), context.original_exception
            raise ConnectionLostError(path, code_of(error), first_line(error)) from error
