"""Opening connections: settings, WAL, and making an empty file a store."""

import os
import sqlite3
import time
from typing import Final
from urllib.parse import quote

from lash_store._backends.sqlite import dialect, guard
from lash_store._backends.sqlite.connection import StoreConnection
from lash_store._backends.sqlite.driver import is_busy
from lash_store._backends.sqlite.files import IN_MEMORY, create_private_file, open_error
from lash_store._kernel.options import Settings
from lash_store._kernel.schema import Schema
from lash_store.errors import StoreBusyError, StoreEmptyError, StoreOpenError

_CACHED_STATEMENTS: Final = 256
"""More than one store has statements, so none of them is ever parsed twice."""

_WAL_NAP_S: Final = 0.005


def open_connection(path: str, settings: Settings, *, read_only: bool) -> StoreConnection:
    """Open one connection on the resolved `path` and give it its settings."""
    if path == IN_MEMORY and read_only:
        raise StoreOpenError(path, "a new in-memory store that can only be read holds nothing")
    if sqlite3.sqlite_version_info < dialect.MINIMUM_SQLITE:
        minimum = ".".join(map(str, dialect.MINIMUM_SQLITE))
        raise StoreOpenError(
            path, f"SQLite {sqlite3.sqlite_version} has no RETURNING; {minimum} or newer is needed"
        )
    if path != IN_MEMORY and not read_only:
        create_private_file(path)
    connection = _connect(path, settings, read_only=read_only)
    try:
        for setting in dialect.connection_settings(
            busy_timeout_ms=settings.busy_timeout_ms, synchronous=settings.synchronous
        ):
            connection.own_cursor.execute(setting).fetchall()  # some answer with a row
    except sqlite3.Error as error:
        connection.dispose()
        raise open_error(path, error, waited_ms=settings.busy_timeout_ms) from error
    return connection


def prepare_file(connection: StoreConnection, schema: Schema, settings: Settings) -> None:
    """Check the file, enter WAL, and initialise the file if it is empty.

    What is refused is refused before anything is written, the journal mode included.
    """
    path = connection.path
    try:
        is_new = guard.needs_initialising(schema, guard.read_catalogue(connection.own_cursor), path)
        enter_wal(connection.own_cursor, path, settings.busy_timeout_ms)
        if is_new:
            _initialise(connection, schema)
    except sqlite3.Error as error:
        raise open_error(path, error, waited_ms=settings.busy_timeout_ms) from error


def check_file(connection: StoreConnection, schema: Schema) -> None:
    """Check the file of a read-only store."""
    try:
        is_new = guard.needs_initialising(
            schema, guard.read_catalogue(connection.own_cursor), connection.path
        )
    except sqlite3.Error as error:
        raise open_error(connection.path, error) from error
    if is_new:
        raise StoreEmptyError(
            connection.path,
            f"it is empty: open it once for writing, to make it a {schema.kind} store",
        )


def _connect(path: str, settings: Settings, *, read_only: bool) -> StoreConnection:
    # mode=rw: the file is there, and if it has just been deleted it must not come back unseen.
    mode = "memory" if path == IN_MEMORY else "ro" if read_only else "rw"
    uri = IN_MEMORY if path == IN_MEMORY else f"file:{quote(os.fsencode(path))}?mode={mode}"
    try:
        connection = sqlite3.connect(
            uri,
            uri=True,
            factory=StoreConnection,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=_CACHED_STATEMENTS,
            timeout=settings.busy_timeout_ms / 1000,
        )
    except sqlite3.Error as error:
        raise open_error(path, error) from error
    connection.adopt(path, busy_timeout_ms=settings.busy_timeout_ms)
    return connection


def enter_wal(cursor: sqlite3.Cursor, path: str, busy_timeout_ms: int) -> None:
    """Switch to WAL; SQLite does not wait for that, so the waiting is done here.

    A database in memory keeps its own journal mode.
    """
    started_s = time.monotonic()
    while True:
        try:
            mode = cursor.execute(dialect.ENTER_WAL).fetchall()[0][0]
        except sqlite3.Error as error:
            if not is_busy(error):
                raise
            waited_s = time.monotonic() - started_s
            if waited_s * 1000 >= busy_timeout_ms:
                raise StoreBusyError(path, round(waited_s * 1000)) from error
            time.sleep(_WAL_NAP_S)
        else:
            if mode not in ("wal", "memory"):
                raise StoreOpenError(path, f"WAL is not possible here, only {mode!r}")
            return


def _initialise(connection: StoreConnection, schema: Schema) -> None:
    connection.begin(dialect.BEGIN_WRITE)
    try:
        # Again under the write lock: another process may have been first.
        guard.ensure_schema(connection.own_cursor, schema, connection.path)
    except BaseException:
        connection.end(dialect.ROLLBACK)
        raise
    connection.end(dialect.COMMIT)
