"""The driver ``sqlite3``, as prepared statements know it: cursors, and what its errors mean."""

import sqlite3
from typing import Any, ClassVar, Final

from sqlalchemy import Dialect

from lash_store._backends.sqlite.dialect import SQLITE
from lash_store._kernel.backend import Cursor, Driver
from lash_store._kernel.observing import observers, telling
from lash_store.errors import (
    LashStoreError,
    ReadOnlyStoreError,
    StorageError,
    StoreBusyError,
    StoreClosedError,
)


class SqliteDriver:
    """What preparing a statement for SQLite needs to know."""

    dialect: Final[Dialect] = SQLITE
    error: Final[type[Exception]] = sqlite3.Error

    def explain(self, error: Exception, cursor: Cursor) -> LashStoreError:
        """Return the error of ours that explains `error`, for the caller to raise from it."""
        return store_error(error, cursor.connection)


DRIVER: Final = SqliteDriver()


class StoreCursor(sqlite3.Cursor):
    """A cursor for the library's own statements: the driver's, and says whose it is."""

    __slots__ = ()

    driver: ClassVar[Driver] = DRIVER


class ObservedCursor(StoreCursor):
    """The same while somebody observes; slower, and therefore another class."""

    __slots__ = ()

    def execute(self, sql: str, parameters: Any = (), /) -> Any:
        """Execute one statement, and tell of it."""
        operation, path = whose(self.connection)
        with telling(operation, sql, path):
            return super().execute(sql, parameters)

    def executemany(self, sql: str, rows: Any, /) -> Any:
        """Execute one statement for each row, and tell of it once."""
        operation, path = whose(self.connection)
        with telling(operation, sql, path):
            return super().executemany(sql, rows)


def open_cursor(connection: sqlite3.Connection) -> StoreCursor:
    """Open a cursor for our own statements, of the class that is due now."""
    kind = ObservedCursor if observers else StoreCursor
    return kind(connection)


def whose(connection: sqlite3.Connection) -> tuple[str, str]:
    """Return the operation that a connection is at, and its path; a consumer's own is joined by ``on()``."""
    return getattr(connection, "operation", "on"), getattr(connection, "path", "the database")


def store_error(error: Exception, connection: sqlite3.Connection) -> LashStoreError:
    """Return the error of ours that explains `error`, for the caller to raise from it."""
    _, path = whose(connection)
    code = primary_code(error)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreBusyError(path, getattr(connection, "busy_timeout_ms", 0))
    if code == sqlite3.SQLITE_READONLY:
        return ReadOnlyStoreError(path)
    if code is None and "closed database" in str(error):
        return StoreClosedError(path)
    return StorageError(path, getattr(error, "sqlite_errorname", type(error).__name__), str(error))


def is_busy(error: Exception) -> bool:
    """Tell whether another connection held a lock: nothing was done, and waiting may help."""
    return primary_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def primary_code(error: BaseException) -> int | None:
    """Return SQLite's primary result code, or None where the driver itself raised."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF
