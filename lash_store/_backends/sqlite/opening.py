"""Opening connections: settings, WAL, and making an empty file a store."""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import quote

from lash_store._backends.sqlite import dialect, forking, guard
from lash_store._backends.sqlite.connection import StoreConnection
from lash_store._backends.sqlite.driver import is_busy
from lash_store._backends.sqlite.fairness import WriteQueue
from lash_store._backends.sqlite.files import (
    IN_MEMORY,
    QUEUE_SUFFIX,
    SIDECARS,
    check_openable,
    create_private_file,
    is_store,
    is_taken,
    is_there,
    may_be_database,
    open_error,
)
from lash_store._kernel.options import Settings
from lash_store._kernel.schema import Schema
from lash_store.errors import StoreBusyError, StoreLostError, StoreOpenError

_CACHED_STATEMENTS: Final = 256
"""More than one store has statements, so none of them is ever parsed twice."""

_WAL_NAP_S: Final = 0.005


def open_writer(
    path: str,
    schema: Schema,
    settings: Settings,
    opened: list[StoreConnection],
    *,
    is_new: bool,
) -> tuple[StoreConnection, WriteQueue | None]:
    """Open the connection that writes, and the queue through which it does; in memory there is none.

    A file that is not there is made if this process has not had it open before, `is_new`, and
    an empty one becomes a store. What is refused is refused before anything is written, the
    journal mode included.
    """
    if not settings.create and is_new and not is_there(path):
        raise StoreOpenError(path, "there is none, and none is to be made (create=False)")
    with _opening(
        path, settings, opened, read_only=False, is_new=is_new, prefix=schema.prefix
    ) as connection:
        lacking = guard.look(connection.own_cursor, schema, path, adopt=settings.adopt)
        if lacking.is_empty and not is_new:
            raise StoreLostError(path, "its file is empty now; nothing was written to it")
        if not settings.create:
            lacking.require_readable(schema, path)
        if lacking.is_empty and path != IN_MEMORY:
            choose_pages(connection.own_cursor)
        enter_wal(connection.own_cursor, path, settings.busy_timeout_ms)
        if lacking:
            initialise(connection, schema, adopt=settings.adopt)
        if path == IN_MEMORY:
            return connection, None
        # Waiting is done outside of SQLite: its busy handler can't be cancelled, and is not fair.
        connection.own_cursor.execute(dialect.busy_timeout(0)).fetchall()
        return connection, WriteQueue(path)


def open_reader(
    path: str,
    schema: Schema,
    settings: Settings,
    opened: list[StoreConnection],
    *,
    is_known: bool,
) -> StoreConnection:
    """Open a connection that only reads, and check the file unless it `is_known`."""
    with _opening(path, settings, opened, read_only=True, prefix=schema.prefix) as connection:
        if not is_known:
            guard.look(connection.own_cursor, schema, path).require_readable(schema, path)
        return connection


def open_connection(
    path: str, settings: Settings, *, read_only: bool, is_new: bool = False, prefix: str = ""
) -> StoreConnection:
    """Open one connection on the resolved `path` and give it its settings."""
    if path == IN_MEMORY and read_only:
        raise StoreOpenError(path, "a new in-memory store that can only be read holds nothing")
    dialect.check_version(path)
    if path != IN_MEMORY:
        if is_new:
            _check_no_sidecar(path)
            _check_beside(path)
            create_private_file(path)
        check_openable(path, read_only=read_only, immutable=settings.immutable)
    connection = _connect(path, settings, read_only=read_only, prefix=prefix)
    try:
        for setting in dialect.connection_settings(
            busy_timeout_ms=settings.busy_timeout_ms, synchronous=settings.synchronous
        ):
            connection.own_cursor.execute(setting).fetchall()  # some answer with a row
    except BaseException as error:
        connection.dispose()
        if isinstance(error, (sqlite3.Error, UnicodeDecodeError)):
            raise open_error(path, error, waited_ms=settings.busy_timeout_ms) from error
        raise
    return connection


@contextmanager
def _opening(
    path: str,
    settings: Settings,
    opened: list[StoreConnection],
    *,
    read_only: bool,
    is_new: bool = False,
    prefix: str,
) -> Iterator[StoreConnection]:
    """Open a connection, and note it among those that are `opened` once the block has made it fit.

    No fork comes in between, which would carry it over unseen; nothing is left open by an error.
    """
    forking.check_not_carried(path)
    with forking.Opening():
        connection = open_connection(
            path, settings, read_only=read_only, is_new=is_new, prefix=prefix
        )
        try:
            yield connection
        except BaseException as error:
            connection.dispose()
            if isinstance(error, (sqlite3.Error, UnicodeDecodeError)):
                raise open_error(path, error, waited_ms=settings.busy_timeout_ms) from error
            raise
        opened.append(connection)


def _connect(path: str, settings: Settings, *, read_only: bool, prefix: str) -> StoreConnection:
    # mode=rw: the file is there, and if it has just been deleted it must not come back unseen.
    mode = "memory" if path == IN_MEMORY else "ro" if read_only else "rw"
    if settings.immutable:
        mode += "&immutable=1"
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
    connection.adopt(path, settings, prefix=prefix)
    return connection


def _check_no_sidecar(path: str) -> None:
    """Raise StoreOpenError where a new file would stand in the place of something of the database beside it."""
    for suffix in (*SIDECARS, "-journal"):
        of = path.removesuffix(suffix)
        if of == path or not may_be_database(of):
            continue
        # The queue of writers leaves a database alone that is there before it.
        if suffix != QUEUE_SUFFIX or (is_there(path) and not is_taken(path)):
            raise StoreOpenError(path, f"it is where something of the database {of!r} is kept")


def _check_beside(path: str) -> None:
    """Raise StoreOpenError where SQLite would take a store for the journal of the new file, and remove it."""
    for suffix in ("-wal", "-shm", "-journal"):
        beside = path + suffix
        if may_be_database(beside) and is_store(beside):
            raise StoreOpenError(
                path, f"SQLite keeps something of it at {beside!r}, which is a database by itself"
            )


def choose_pages(cursor: sqlite3.Cursor) -> None:
    """Let a file that has no page yet have pages of our size (K-OPEN-15)."""
    # Of one that has some it would change them at the next VACUUM, which is its owner's affair.
    if cursor.execute(dialect.COUNT_PAGES).fetchall() == [(0,)]:
        cursor.execute(dialect.CHOOSE_PAGES).fetchall()


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


def prepare_joined(
    raw: sqlite3.Connection,
    cursor: sqlite3.Cursor,
    settings: Settings,
    path: str,
    *,
    keeps_keys: bool,
) -> None:
    """Set what our transactions need on a connection of a consumer's own."""
    # The driver's own transaction control would begin late, and as a reader.
    raw.isolation_level = None
    for setting in dialect.connection_settings(
        busy_timeout_ms=settings.busy_timeout_ms,
        synchronous=settings.synchronous,
        keeps_keys=keeps_keys,
    ):
        cursor.execute(setting).fetchall()  # some answer with a row
    enter_wal(cursor, path, settings.busy_timeout_ms)


def initialise(connection: StoreConnection, schema: Schema, *, adopt: bool) -> None:
    """Make what a database lacks, unless another process was first; the turn is this thread's."""
    connection.begin(dialect.BEGIN_WRITE)
    try:
        # Again under the write lock: another process may have been first.
        guard.ensure_schema(connection.own_cursor, schema, connection.path, adopt=adopt)
    except BaseException:
        connection.end(dialect.ROLLBACK)
        raise
    connection.end(dialect.COMMIT)
