"""The driver psycopg, as prepared statements know it: cursors, and what its errors mean."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, ClassVar, Final, cast

import psycopg
from psycopg import errors
from sqlalchemy import Dialect

from lash_store._backends.postgresql.dialect import dialect_for
from lash_store._kernel.backend import Cursor, Driver, Statement
from lash_store._kernel.observing import observers, telling
from lash_store._kernel.schema import declared
from lash_store.errors import (
    ConnectionLostError,
    DeadlockError,
    InvalidRecordError,
    LashStoreError,
    MissingTableError,
    ReadOnlyStoreError,
    StorageError,
    StoreBusyError,
    TransactionEndedError,
)


class PostgresqlDriver:
    """What preparing a statement for PostgreSQL needs to know."""

    error: Final[type[Exception]] = psycopg.Error

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect

    def explain(
        self,
        error: Exception,
        cursor: Cursor,
        statement: Statement | None = None,  # noqa: ARG002 # reason: the protocol's signature
        values: Sequence[Any] = (),  # noqa: ARG002 # reason: likewise
    ) -> LashStoreError:
        """Return the error of ours that explains `error`, for the caller to raise from it."""
        return store_error(error, cursor.connection, getattr(cursor, "path", None))


class StoreCursor(psycopg.RawCursor[Any]):
    """A cursor for the library's own statements: the driver's, and says whose it is."""

    driver: ClassVar[Driver]

    scope: str
    """Whose rows a statement on scoped tables is about; see ``sharing``."""

    path: str | None = None
    """What the database is called, on a connection of a consumer's own, which doesn't say."""

    def execute(self, sql: Any, parameters: Any = None, /, **options: Any) -> Any:  # type: ignore[override] # reason: by position alone
        """Execute one statement, and tell who observes."""
        if not observers:
            super().execute(sql, parameters, **options)
        else:
            operation, path = whose(self.connection)
            with telling(operation, sql, path):
                super().execute(sql, parameters, **options)
        if self.rowcount > 0 and not (self.statusmessage or "").startswith("SELECT"):
            connection: Any = self.connection
            connection.has_written = True
        return self

    def executemany(self, sql: Any, rows: Iterable[Any], /) -> None:  # type: ignore[override] # reason: likewise
        """Execute one statement for each row, and tell of it once."""
        given = list(rows)
        if not given:
            # The driver leaves what a statement before it has changed.
            self._reset()
            self._rowcount = 0
            return
        operation, path = whose(self.connection)
        with telling(operation, sql, path):
            super().executemany(sql, given)
        connection: Any = self.connection
        connection.has_written = True


@cache
def _cursor_class(prefix: str, schema: str | None) -> type[StoreCursor]:
    class SharedCursor(StoreCursor):
        driver = PostgresqlDriver(dialect_for(prefix, schema))

    return SharedCursor


def open_cursor(
    connection: psycopg.Connection[Any], prefix: str, schema: str | None
) -> StoreCursor:
    """Open a cursor for our own statements."""
    return _cursor_class(prefix, schema)(connection)


def whose(connection: Any) -> tuple[str, str]:
    """Return the operation that a connection is at, and its path; a consumer's own is joined by ``on()``."""
    return getattr(connection, "operation", "on"), getattr(connection, "path", "the database")


def store_error(error: BaseException, connection: Any, path: str | None = None) -> LashStoreError:
    """Return the error of ours that explains `error`, for the caller to raise from it."""
    path = path or whose(connection)[1]
    waited_ms = getattr(connection, "budget_ms", 0)
    if isinstance(error, errors.LockNotAvailable):
        return StoreBusyError(path, waited_ms)
    if isinstance(error, (errors.DeadlockDetected, errors.SerializationFailure)):
        return DeadlockError(path, str(error))
    own = consumer_error(error, path, getattr(connection, "prefix", ""))
    if own is not None:
        return own
    if isinstance(error, psycopg.DataError) and error.sqlstate is None:  # it was not even sent
        return InvalidRecordError("parameters", "of a statement", first_line(error))
    kind = ConnectionLostError if is_lost(error, connection) else StorageError
    return kind(path, code_of(error), first_line(error))


_MISSING_TABLE: Final = re.compile(r'relation "(?:\w+\.)?(\w+)" does not exist')


def consumer_error(error: BaseException, path: str, prefix: str) -> LashStoreError | None:
    """Return the error of ours that explains one of a statement of a consumer's own, if there is one."""
    if isinstance(error, errors.ReadOnlySqlTransaction):
        return ReadOnlyStoreError(path)
    if isinstance(error, errors.InFailedSqlTransaction):
        return TransactionEndedError(
            f"an error before this has ended the transaction on {path!r}, and nothing of it is kept: "
            "what may fail belongs in a savepoint, `with tx.connection.begin_nested():`"
        )
    if isinstance(error, errors.UndefinedTable):
        found = _MISSING_TABLE.search(str(error))
        for schema in declared:
            for table in schema.tables:
                if found is not None and found[1] == prefix + table.name:
                    return MissingTableError(path, found[1], schema.kind)
    return None


def is_lost(error: BaseException, connection: Any) -> bool:
    """Tell whether the connection is gone, and with it what it had not committed."""
    if isinstance(error, (errors.AdminShutdown, errors.CrashShutdown, errors.CannotConnectNow)):
        return True
    if isinstance(error, (errors.IdleInTransactionSessionTimeout, errors.IdleSessionTimeout)):
        return True
    if not isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
        return False
    return cast("bool", connection is None or connection.closed or connection.broken)


def code_of(error: BaseException) -> str:
    """Return the server's code of an error, or the name of what the driver raised."""
    return getattr(error, "sqlstate", None) or type(error).__name__


def first_line(error: BaseException) -> str:
    """Return what an error says, without the lines that show a statement and its values."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


_FAULTS: Final[dict[str, type[psycopg.Error]]] = {
    "busy": errors.LockNotAvailable,
    "io error": errors.IoError,
    "full disk": errors.DiskFull,
}


def driver_fault(kind: str) -> Exception:
    """Return what the driver raises when a lock can't be had, a disk fails, or is full: for tests."""
    return _FAULTS[kind](kind)
