"""The driver psycopg, as prepared statements know it: cursors, and what its errors mean."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from decimal import Decimal
from functools import cache
from typing import Any, ClassVar, Final, cast

import psycopg
from psycopg import errors
from psycopg.pq import PipelineStatus
from psycopg.rows import tuple_row
from sqlalchemy import Dialect, Table

from lash_store._backends.postgresql.dialect import dialect_for
from lash_store._kernel.backend import Cursor, Driver, Statement
from lash_store._kernel.observing import observers, telling
from lash_store._kernel.schema import declared
from lash_store._kernel.signals import is_from_handler
from lash_store.errors import (
    ConnectionLostError,
    DeadlockError,
    DiskFullError,
    InvalidRecordError,
    LashStoreError,
    MissingTableError,
    OutcomeUnknownError,
    ReadOnlyStoreError,
    StorageError,
    StoreBusyError,
    StoreOpenError,
    TransactionEndedError,
)

_CONTINUE: Final = """\
SELECT setval(drawn::regclass, greatest(max({column}), pg_sequence_last_value(drawn::regclass)))
FROM pg_get_serial_sequence($1, $2) AS drawn, {table} WHERE drawn IS NOT NULL GROUP BY drawn"""


class PostgresqlDriver:
    """What preparing a statement for PostgreSQL needs to know."""

    error: Final[type[Exception]] = psycopg.Error
    number_types: Final[Mapping[type, int]] = {Decimal: 1700, float: 701, int: 23}

    def __init__(self, dialect: Dialect, prefix: str) -> None:
        self.dialect = dialect
        self._prefix = prefix

    def explain(
        self,
        error: Exception,
        cursor: Cursor,
        statement: Statement | None = None,  # noqa: ARG002 # reason: the protocol's signature
        values: Sequence[Any] = (),  # noqa: ARG002 # reason: likewise
    ) -> LashStoreError:
        """Return the error of ours that explains `error`, for the caller to raise from it."""
        path = getattr(cursor, "path", None)
        explained = store_error(error, cursor.connection, path, self._prefix)
        note_lost = getattr(cursor, "note_lost", None)
        if note_lost is not None and isinstance(explained, ConnectionLostError):
            note_lost()  # or the end of its transaction would fail as well, and hide this
        return explained

    def refuses(self, error: Exception) -> bool:
        """Tell whether the statement itself can't be run, or takes other values."""
        of_a_statement = (psycopg.ProgrammingError, psycopg.DataError, psycopg.NotSupportedError)
        return isinstance(error, of_a_statement)

    def plan(self, cursor: Cursor, sql: str, count: int) -> list[str]:  # noqa: ARG002 # reason: likewise
        """Return the server's plan for a statement, whatever its values, a line for each step."""
        cursor.execute(f"EXPLAIN (GENERIC_PLAN) {sql}")
        return [line for (line,) in cursor.fetchall()]

    def leniently(self, cursor: Cursor) -> AbstractContextManager[None]:  # noqa: ARG002 # reason: likewise
        """Do nothing: a server has no such text."""
        return nullcontext()

    def continue_numbers(self, cursor: Cursor, table: Table[Any]) -> None:
        """Let a table's sequence go on behind the highest number in it; a sequence goes never back."""
        column = table.autoincrement_column
        if column is not None:
            name = f"{cursor.connection.place}{table.name}"  # a schema and a prefix, which were checked
            try:
                cursor.execute(
                    _CONTINUE.format(column=column.name, table=name), (name, column.name)
                )
                cursor.fetchall()
            except psycopg.Error as error:
                raise self.explain(error, cursor) from error

    def require_all_rows(self, cursor: Cursor) -> None:
        """Have the server refuse what a policy of a table would hide rows of."""
        cursor.execute("SET LOCAL row_security = off")


class StoreCursor(psycopg.RawCursor[Any]):
    """A cursor for the library's own statements: the driver's, and says whose it is."""

    driver: ClassVar[Driver]

    scope: str
    """Whose rows a statement on scoped tables is about; see ``sharing``."""

    path: str | None = None
    """What the database is called, on a connection of a consumer's own, which doesn't say."""

    note_lost: Callable[[], object] | None = None
    """Whom to tell that its connection is gone, if that is a consumer's own."""

    is_last = False
    """Whether its next statement is the last of its transaction, which commits with it if that changes anything."""

    is_patient = False
    """Whether what needs no answer at once may wait for what does: in operations of the library's own."""

    def execute(self, sql: Any, parameters: Any = None, /, **options: Any) -> Any:  # type: ignore[override] # reason: by position alone
        """Execute one statement, and tell who observes."""
        connection: Any = self.connection
        if self.is_last:
            self.is_last = False
            connection.execute_last(self, sql, parameters)
        elif getattr(connection, "unsent", None):
            connection.send(lambda: self.execute_now(sql, parameters, **options))
        else:
            self.execute_now(sql, parameters, **options)
        if self.rowcount > 0 and not (self.statusmessage or "").startswith("SELECT"):
            connection.has_written = True
        return self

    def execute_now(self, sql: Any, parameters: Any = None, /, **options: Any) -> None:
        """Execute one statement, whatever else waits."""
        try:
            if not observers:
                super().execute(sql, parameters, **options)
                return
            operation, path = whose(self.connection)
            with telling(operation, sql, path):
                super().execute(sql, parameters, **options)
        except UnicodeEncodeError as error:
            raise self._unspelt(error) from error

    def executemany(self, sql: Any, rows: Iterable[Any], /) -> None:  # type: ignore[override] # reason: likewise
        """Execute one statement for each row, and tell of it once."""
        given = list(rows)
        if not given:
            # The driver leaves what a statement before it has changed.
            self._reset()
            self._rowcount = 0
            return
        connection: Any = self.connection
        if getattr(connection, "unsent", None):
            connection.send(lambda: self.execute_many_now(sql, given))
        else:
            self.execute_many_now(sql, given)
        connection.has_written = True

    def execute_many_now(self, sql: Any, rows: list[Any], /) -> None:
        """Execute one statement for each row, whatever else waits."""
        operation, path = whose(self.connection)
        try:
            with telling(operation, sql, path), pipelining(self.connection):
                super().executemany(sql, rows)
        except UnicodeEncodeError as error:
            raise self._unspelt(error) from error

    def _unspelt(self, error: UnicodeEncodeError) -> psycopg.DataError:
        """Return the driver's error of a text that can't be sent: an application may set another encoding."""
        encoding = self.connection.info.encoding
        return psycopg.DataError(
            f"a text can't be spelt in {encoding}, the client_encoding: {error.reason}"
        )

    def later(self, sql: str, parameters: Any, /) -> None:
        """Send a statement with the next one."""
        if not self.is_patient:
            self.execute(sql, parameters)
            return
        connection: Any = self.connection
        connection.has_written = True
        self._wait(lambda own: own.execute_now(sql, parameters))

    def later_many(self, sql: str, rows: Iterable[Any], /) -> None:
        """Send a statement for each row, with the next one."""
        given = list(rows)
        if not (self.is_patient and given):
            self.executemany(sql, given)
            return
        connection: Any = self.connection
        connection.has_written = True
        self._wait(lambda own: own.execute_many_now(sql, given))

    def ask(self, sql: str, parameters: Any, /) -> Callable[[], list[Any]]:
        """Send a statement with the next one, or when its rows are wanted."""
        if not self.is_patient:
            rows = self.execute(sql, parameters).fetchall()
            return lambda: rows
        connection: Any = self.connection
        own = self._wait(lambda own: own.execute_now(sql, parameters))

        def answer() -> list[Any]:
            connection.send_unsent()
            return own.fetchall()

        return answer

    def _wait(self, send: Callable[[StoreCursor], None]) -> StoreCursor:
        """Put a statement behind what waits; return the cursor of its own that it is sent on."""
        connection: Any = self.connection
        own = type(self)(connection)
        connection.unsent.append(lambda: send(own))
        return own


@contextmanager
def pipelining(connection: Any) -> Iterator[None]:
    """Raise an interrupt that strikes in a pipeline, and not what the driver raises over it as it leaves that.

    A connection of the store's own of which the driver has not left it is of no more use.
    """
    before = sys.exception()  # which the caller may be about to handle
    is_within = _is_pipelining(connection)  # another's, who leaves it
    try:
        yield
    except BaseException as error:
        if not is_within and _is_pipelining(connection):
            getattr(connection, "discard", _leave)()
        # Its assertions fail as well.
        struck = _struck(error, before) if isinstance(error, Exception) else None
        if struck is not None:
            raise struck from None
        raise


def _struck(error: Exception, before: BaseException | None) -> BaseException | None:
    """Return the interrupt, or what a signal's handler has raised, over which the driver has raised `error`."""
    beneath, seen = error.__context__, set[int]()
    while beneath is not None and beneath is not before and id(beneath) not in seen:
        seen.add(id(beneath))
        is_plain = isinstance(beneath, Exception) and not is_from_handler(beneath)
        if not (isinstance(beneath, psycopg.Error) or is_plain):
            return beneath
        beneath = beneath.__context__
    return None


def _is_pipelining(connection: Any) -> bool:
    is_open = not connection.closed
    return is_open and connection.pgconn.pipeline_status != PipelineStatus.OFF


def _leave() -> None:
    """Leave a consumer's own connection to whoever ends its transaction; see ``Begun.is_torn``."""


@cache
def _cursor_class(prefix: str, schema: str | None) -> type[StoreCursor]:
    class SharedCursor(StoreCursor):
        driver = PostgresqlDriver(dialect_for(prefix, schema), prefix)

    return SharedCursor


def open_cursor(
    connection: psycopg.Connection[Any], prefix: str, schema: str | None
) -> StoreCursor:
    """Open a cursor for our own statements."""
    # The application's own connection may make something else of a row.
    return _cursor_class(prefix, schema)(connection, row_factory=tuple_row)


def whose(connection: Any) -> tuple[str, str]:
    """Return the operation that a connection is at, and its path; a consumer's own is joined by ``on()``."""
    return getattr(connection, "operation", "on"), getattr(connection, "path", "the database")


def store_error(
    error: BaseException, connection: Any, path: str | None = None, prefix: str = ""
) -> LashStoreError:
    """Return the error of ours that explains `error`, for the caller to raise from it.

    `prefix` is that of our tables where the connection, a consumer's own, doesn't say.
    """
    path = path or whose(connection)[1]
    waited_ms = getattr(connection, "budget_ms", 0)
    if isinstance(error, errors.LockNotAvailable):
        return StoreBusyError(path, waited_ms)
    if isinstance(error, (errors.DeadlockDetected, errors.SerializationFailure)):
        return DeadlockError(path, str(error))
    own = consumer_error(error, path, getattr(connection, "prefix", prefix))
    if own is not None:
        return own
    is_no_value = isinstance(error, psycopg.DataError) or "cannot adapt" in str(error)
    if is_no_value and getattr(error, "sqlstate", None) is None:  # it was not even sent
        return InvalidRecordError("parameters", "of a statement", first_line(error))
    if isinstance(error, errors.ProgramLimitExceeded):  # a key has to fit into a page of its index
        why = f"is too long for an index, which takes some 2,700 bytes ({first_line(error)})"
        return InvalidRecordError("a name or key", "of a row", why)
    kind = DiskFullError if isinstance(error, errors.DiskFull) else StorageError
    kind = ConnectionLostError if is_lost(error, connection) else kind
    return kind(path, code_of(error), first_line(error))


def commit_error(error: psycopg.Error, connection: Any) -> LashStoreError:
    """Return the error of ours for a COMMIT that has failed; it may have happened all the same (K-PG-2)."""
    said = (connection.path, code_of(error), first_line(error))
    if isinstance(error, errors.IdleInTransactionSessionTimeout):
        return ConnectionLostError(
            *said
        )  # said while it waited for a statement: COMMIT was never read
    if error.sqlstate is None or is_lost(error, connection):
        return OutcomeUnknownError(*said)  # it is not the server that says so
    return store_error(error, connection)


def opening_error(
    error: BaseException, connection: Any, schema: str | None, path: str | None = None
) -> LashStoreError:
    """Return the error of ours for one that came while our tables in `schema` were looked at or made."""
    path = path or connection.path
    if isinstance(error, errors.InsufficientPrivilege):
        return StoreOpenError(path, first_line(error))
    if isinstance(error, errors.InvalidSchemaName):
        cause = f"the schema {schema!r} is not there, or not to be used by this role"
        return StoreOpenError(path, cause)
    return store_error(error, connection, path)


_MISSING_TABLE: Final = re.compile(r'relation "(?:.*\.)?(\w+)" does not exist')


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


_ENDS_THE_SESSION: Final = ("25P03", "25P04", "57P05")
"""What a server says as it ends a session whose transaction, or whose idling, was too long for it."""


def is_lost(error: BaseException, connection: Any) -> bool:
    """Tell whether the connection is gone, and with it what it had not committed."""
    if isinstance(error, (errors.AdminShutdown, errors.CrashShutdown, errors.CannotConnectNow)):
        return True
    if getattr(error, "sqlstate", None) in _ENDS_THE_SESSION:
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
