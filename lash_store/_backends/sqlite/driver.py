"""The driver ``sqlite3``, as prepared statements know it: cursors, and what its errors mean."""

import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, ClassVar, Final

from sqlalchemy import Dialect, Table

from lash_store._backends.sqlite.dialect import DATA_VERSION, SQLITE, dialect_for
from lash_store._backends.sqlite.undecodable import undecodable_column, undecodable_text
from lash_store._kernel.backend import Cursor, Driver, Statement
from lash_store._kernel.observing import observers, telling
from lash_store._kernel.schema import declared
from lash_store._kernel.sharing import Sharing
from lash_store.errors import (
    DiskFullError,
    InvalidRecordError,
    LashStoreError,
    MissingTableError,
    ReadOnlyStoreError,
    StorageError,
    StoreBusyError,
    StoreClosedError,
)


class SqliteDriver:
    """What preparing a statement for SQLite needs to know."""

    error: Final[type[Exception]] = sqlite3.Error
    number_types: Final[Mapping[type, int]] = {}

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect

    def explain(
        self,
        error: Exception,
        cursor: Cursor,
        statement: Statement | None = None,
        values: Sequence[Any] = (),
    ) -> LashStoreError:
        """Return the error of ours that explains `error`, for the caller to raise from it."""
        connection = cursor.connection
        if statement is not None:
            corrupt = undecodable_text(error, connection, statement, values)
            if corrupt is not None:
                return corrupt
        sharing: Sharing | None = getattr(self.dialect, "sharing", None)
        prefix = "" if sharing is None else sharing.prefix
        return store_error(error, connection, getattr(cursor, "path", None), prefix)

    def refuses(self, error: Exception) -> bool:
        """Tell whether the statement itself can't be run, or takes other values."""
        code = primary_code(error)
        if code is None:
            return "closed database" not in str(error)
        return code in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISMATCH)

    def plan(self, cursor: Cursor, sql: str, count: int) -> list[str]:
        """Return SQLite's plan for a statement, a line for each step."""
        depths, lines = {0: -1}, []
        cursor.execute(f"EXPLAIN QUERY PLAN {sql}", (None,) * count)
        for step, parent, _, detail in cursor.fetchall():
            depths[step] = depths.get(parent, -1) + 1
            lines.append("  " * depths[step] + detail)
        return lines

    @contextmanager
    def leniently(self, cursor: Cursor) -> Iterator[None]:
        """Read text that is no UTF-8 in this block, lone surrogates in the place of its bytes."""
        connection = cursor.connection
        as_text, connection.text_factory = connection.text_factory, _lenient_text
        try:
            yield
        finally:
            connection.text_factory = as_text

    def continue_numbers(self, cursor: Cursor, table: Table[Any]) -> None:
        """Do nothing: SQLite goes by the rows."""

    def require_all_rows(self, cursor: Cursor) -> None:
        """Do nothing: SQLite hides none."""


def _lenient_text(content: bytes) -> str:
    return content.decode(errors="surrogateescape")


_MISSING_TABLE: Final = re.compile(r"no such table: (?:main\.)?(\w+)")

DRIVER: Final = SqliteDriver(SQLITE)


class StoreCursor(sqlite3.Cursor):
    """A cursor for the library's own statements: the driver's, and says whose it is."""

    __slots__ = ("path", "scope")

    driver: ClassVar[Driver] = DRIVER

    path: str
    """What the database is called in messages."""

    scope: str
    """Whose rows a statement on scoped tables is about; see ``sharing``."""

    later = sqlite3.Cursor.execute
    later_many = sqlite3.Cursor.executemany

    def ask(self, sql: str, parameters: Any, /) -> Callable[[], list[Any]]:
        """Execute one statement; there is no wire on which that would take time."""
        rows = self.execute(sql, parameters).fetchall()
        return lambda: rows


class ObservedCursor(StoreCursor):
    """The same while somebody observes; slower, and therefore another class."""

    __slots__ = ()

    def execute(self, sql: str, parameters: Any = (), /) -> Any:
        """Execute one statement, and tell of it."""
        with telling(operation_of(self.connection), sql, self.path):
            return super().execute(sql, parameters)

    def executemany(self, sql: str, rows: Any, /) -> Any:
        """Execute one statement for each row, and tell of it once."""
        with telling(operation_of(self.connection), sql, self.path):
            return super().executemany(sql, rows)

    later = execute
    later_many = executemany


@cache
def _cursor_classes(prefix: str) -> tuple[type[StoreCursor], type[StoreCursor]]:
    """Return the classes of cursors on a database with that prefix: as they are, and observed."""
    if not prefix:
        return StoreCursor, ObservedCursor
    driver = SqliteDriver(dialect_for(prefix))

    class SharedCursor(StoreCursor):
        __slots__ = ()

    class ObservedSharedCursor(ObservedCursor):
        __slots__ = ()

    SharedCursor.driver = ObservedSharedCursor.driver = driver
    return SharedCursor, ObservedSharedCursor


def open_cursor(
    connection: sqlite3.Connection, prefix: str = "", path: str | None = None
) -> StoreCursor:
    """Open a cursor for our own statements, of the class that is due now; a consumer's connection has no `path`."""
    cursor = _cursor_classes(prefix)[bool(observers)](connection)
    cursor.path = path or path_of(connection)
    return cursor


def unobserved(cursor: sqlite3.Cursor, sql: str) -> list[tuple[int, ...]]:
    """Run one statement past whoever observes: it is no statement of anybody's; return its numbers."""
    return sqlite3.Cursor.execute(cursor, sql).fetchall()


def data_version(cursor: sqlite3.Cursor) -> int:
    """Return what changes when another connection commits; reads nothing else."""
    ((version,),) = unobserved(cursor, DATA_VERSION)
    return version


def operation_of(connection: sqlite3.Connection) -> str:
    """Return the operation that a connection is at; a consumer's own is joined by ``on()``."""
    return getattr(connection, "operation", "on")


def path_of(connection: sqlite3.Connection) -> str:
    """Return what a connection's database is called; a consumer's own does not know it."""
    return getattr(connection, "path", "the database")


def store_error(
    error: Exception,
    connection: sqlite3.Connection,
    path: str | None = None,
    prefix: str | None = None,
) -> LashStoreError:
    """Return the error of ours that explains `error`, for the caller to raise from it."""
    path = path or path_of(connection)
    code = primary_code(error)
    if code == sqlite3.SQLITE_BUSY and "statements in progress" in str(error):
        why = f"{error}: a result that changes rows is open in this transaction: read it to its end, or close it"
        return StorageError(path, "SQLITE_BUSY", why)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreBusyError(path, getattr(connection, "busy_timeout_ms", 0))
    if code is None and "closed database" in str(error):
        return StoreClosedError(path)
    if code is None and "binding parameter" in str(error):
        return InvalidRecordError("parameters", "of a statement", str(error))
    own = consumer_error(
        error, path, getattr(connection, "prefix", "") if prefix is None else prefix
    )
    if own is not None:
        return own
    code_name = getattr(error, "sqlite_errorname", type(error).__name__)
    column = undecodable_column(error)
    cause = str(error) if column is None else f"a text in its column {column!r} is no UTF-8"
    kind = DiskFullError if code_name == "SQLITE_FULL" else StorageError
    return kind(path, code_name, cause)


def own_error(error: LashStoreError, connection: sqlite3.Connection) -> LashStoreError:
    """Return the same error again: each caller gets an object of its own."""
    cause = error.__cause__
    own = store_error(cause, connection) if isinstance(cause, sqlite3.Error) else error
    own.__cause__ = cause
    return own


def consumer_error(error: BaseException, path: str, prefix: str) -> LashStoreError | None:
    """Return the error of ours that explains one of a statement of a consumer's own, if there is one.

    `prefix` is that of our tables in the database: a consumer's own may end in the same name.
    """
    if primary_code(error) == sqlite3.SQLITE_READONLY:
        return ReadOnlyStoreError(path)
    found = _MISSING_TABLE.match(str(error))
    if found is not None:
        for schema in declared:
            for table in schema.tables:
                if found[1] == prefix + table.name:
                    return MissingTableError(path, found[1], schema.kind)
    return None


def is_busy(error: Exception) -> bool:
    """Tell whether another connection held a lock: nothing was done, and waiting may help."""
    return primary_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def is_constraint(error: LashStoreError) -> bool:
    """Tell whether SQLite refused what would have broken a constraint."""
    cause = error.__cause__
    return cause is not None and primary_code(cause) == sqlite3.SQLITE_CONSTRAINT


def primary_code(error: BaseException) -> int | None:
    """Return SQLite's primary result code, or None where the driver itself raised."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


_FAULTS: Final = {
    "busy": (sqlite3.SQLITE_BUSY, "SQLITE_BUSY", "database is locked"),
    "io error": (sqlite3.SQLITE_IOERR, "SQLITE_IOERR", "disk I/O error"),
    "full disk": (sqlite3.SQLITE_FULL, "SQLITE_FULL", "database or disk is full"),
}


def driver_fault(kind: str) -> Exception:
    """Return what the driver raises when a file is locked, a disk fails, or is full: for tests."""
    code, name, text = _FAULTS[kind]
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode, error.sqlite_errorname = code, name
    return error
