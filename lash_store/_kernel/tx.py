"""What every store's transaction class has: the clock's one reading, the connection, its end."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from sqlalchemy import Connection

from lash_store._kernel import bridge, dialects, guard
from lash_store._kernel.checks import check_count
from lash_store._kernel.configured import Begun
from lash_store._kernel.connection import StoreConnection, store_error
from lash_store._kernel.ddl import Schema
from lash_store.clock import MAX_INT, Clock, IdSource
from lash_store.errors import SchemaVersionError, TransactionEndedError


@dataclass(frozen=True, slots=True)
class Context:
    """What every transaction of one store shares."""

    session_id: str
    """The session that operations act on when they are given none; empty where there is none."""

    clock: Clock
    ids: IdSource


class Tx:
    """The operations of one store, on a transaction that is open.

    Made by ``store.begin()`` and ``store.read()``, or by ``on()`` over a consumer's own
    connection. Usable until that transaction ends; after that, TransactionEndedError.
    """

    __slots__ = ("__weakref__", "_connection", "_cursor", "context", "is_single", "now_ms", "raw")

    schema: ClassVar[Schema]

    now_ms: int
    """The clock's one reading in this transaction, in milliseconds since the epoch."""

    def __init__(self, context: Context, raw: sqlite3.Connection, cursor: sqlite3.Cursor) -> None:
        self.context = context
        now_ms = context.clock.now_ms()
        if type(now_ms) is not int or not 0 <= now_ms <= MAX_INT:
            check_count("clock.now_ms()", now_ms)  # raises
        self.now_ms = now_ms
        self.raw: sqlite3.Connection | None = raw
        """The DBAPI connection while the transaction is open, then None; see :attr:`cursor`."""
        self.is_single = False
        """Whether the transaction is one operation's alone, so that its failure ends both."""
        self._cursor = cursor
        self._connection: Connection | None = None

    @property
    def cursor(self) -> sqlite3.Cursor:
        """The DBAPI cursor for prepared statements; raises once the transaction is over.

        Asked for again by every operation: SQLite itself rolls a transaction back on some
        errors, and what runs after that would commit by itself, statement by statement.
        """
        raw = self.raw
        if raw is None or not raw.in_transaction:
            raise TransactionEndedError(
                "this transaction has ended, or belongs to the process that forked this one"
                if raw is None
                else "SQLite rolled this transaction back after an error"
            )
        return self._cursor

    @property
    def connection(self) -> Connection:
        """A SQLAlchemy Connection on this transaction, for the consumer's own statements.

        It can't end the transaction: commit, rollback and close are refused (K-TX-7).
        """
        raw, connection = self.cursor.connection, self._connection
        if isinstance(raw, StoreConnection) and not bridge.is_usable(connection):
            if connection is not None:
                bridge.disconnect(connection, raw)
            connection = self._connection = bridge.connect(raw)
        assert connection is not None  # on() brings its own
        return connection

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """Undo what the block wrote if an exception leaves it, though the transaction goes on.

        For operations of several writes: a consumer may catch their error inside ``begin()``.
        """
        if self.is_single:
            yield  # and the whole transaction is rolled back
            return
        cursor = self.cursor
        _run(cursor, dialects.SAVEPOINT)
        try:
            yield
            _run(cursor, dialects.RELEASE_SAVEPOINT)
        except BaseException:
            if cursor.connection.in_transaction:
                _run(cursor, dialects.UNDO_TO_SAVEPOINT)
                _run(cursor, dialects.RELEASE_SAVEPOINT)
            raise

    def leave(self) -> None:
        """End this Tx, while its transaction is still open: every further use is refused."""
        raw, connection = self.raw, self._connection
        self.raw = self._connection = None
        if connection is not None and isinstance(raw, StoreConnection):
            bridge.disconnect(connection, raw)

    def abandon(self) -> None:
        """End this Tx without touching its connection; every further use is refused."""
        self.raw = None
        self._connection = None

    def join(self, begun: Begun, connection: Connection) -> None:
        """Stand on a consumer's transaction instead of one of a store (K-TX-8, K-GUARD-5)."""
        path = connection.engine.url.database or "the database"
        try:
            catalogue = guard.read_catalogue(begun.raw)
            is_empty = guard.needs_initialising(self.schema, catalogue, path)
            if is_empty and begun.mode == "read":
                raise SchemaVersionError(self.schema.kind, self.schema.version, 0, path)
            if is_empty:
                guard.initialise(begun.raw, self.schema)
        except sqlite3.Error as error:
            raise store_error(error, begun.raw) from error
        self._connection = connection
        begun.joined.add(self)


def _run(cursor: sqlite3.Cursor, statement: str) -> None:
    try:
        cursor.execute(statement)
    except sqlite3.Error as error:
        raise store_error(error, cursor.connection) from error
