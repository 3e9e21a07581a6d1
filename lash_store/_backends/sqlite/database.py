"""One SQLite database that is open: connections, transactions, close, fork.

A file has one connection that writes and as many that only read as there are readers at
once. Writers of this process wait for each other in a :class:`~.fairness.FairLock`, then for
other processes in a :class:`~.fairness.WriteQueue`. A database in memory has one connection
for everything, so its reads wait for the lock as well.
"""

import os
import sqlite3
import threading
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import Final

from lash_store._backends.sqlite import dialect, forking, guard
from lash_store._backends.sqlite.connection import StoreConnection
from lash_store._backends.sqlite.driver import store_error
from lash_store._backends.sqlite.fairness import FairLock, WriteQueue
from lash_store._backends.sqlite.files import IN_MEMORY, resolve
from lash_store._backends.sqlite.opening import open_reader, open_writer
from lash_store._kernel.options import Settings
from lash_store._kernel.schema import Schema
from lash_store._kernel.watching import Watch, announce, watched
from lash_store.errors import (
    NestedTransactionError,
    ReadOnlyStoreError,
    StoreBusyError,
    StoreClosedError,
)

_MAX_IDLE_READERS: Final = 8


class SqliteDatabase:
    """One open database, usable from any thread; see the head of this module."""

    def __init__(
        self, schema: Schema, path: str | os.PathLike[str] | None, settings: Settings
    ) -> None:
        self.schema = schema
        self.path = path = resolve(path)
        self.settings = settings
        self.in_memory = path == IN_MEMORY
        self.closed = False
        self._busy_timeout_s = settings.busy_timeout_ms / 1000
        self._connections: list[StoreConnection] = []
        self._idle_readers: list[StoreConnection] = []
        self._lock = FairLock()
        self._queue: WriteQueue | None = None
        self._writer: StoreConnection | None = None
        self._locked_for_fork = self._version_locked_for_fork = False
        self._version_lock = threading.Lock()
        self._version_reader: StoreConnection | None = None
        self._version_readers = 0
        self.key = f"{path} {id(self)}" if self.in_memory else path
        """What tells this database from the others that this process has open."""

        self.watch = self._new_watch()
        forking.databases[id(self)] = self  # before it is open: a fork has to wait for that
        if settings.read_only:
            self._idle_readers.append(self._open_reader())
        else:
            self._writer = self._open_writer()

    def begin_write(self, operation: str, keys: Sequence[str] = ()) -> StoreConnection:  # noqa: ARG002 # reason: a file has one writer, whatever it writes
        """Begin a write transaction, with the write lock held; end it with :meth:`end_write`."""
        started_s = monotonic()
        if not self._lock.acquire(self._busy_timeout_s):
            raise self._busy(started_s)
        try:
            connection = self._writer or self._open_again()
            connection.operation = operation
            try:
                if self._queue is None:
                    connection.begin(dialect.BEGIN_WRITE)
                else:
                    self._queue.begin(connection, started_s)
            except BaseException as error:
                # It may have begun all the same: an interrupt can come right after.
                connection.end(dialect.ROLLBACK)
                if isinstance(error, sqlite3.Error):
                    raise store_error(error, connection) from error
                raise
        except BaseException:
            self._lock.release()
            raise
        return connection

    def end_write(self, connection: StoreConnection, *, commit: bool) -> None:
        """Commit or roll back; whatever happens, the lock is free and nothing is half done."""
        try:
            connection.end(dialect.COMMIT if commit else dialect.ROLLBACK)
        finally:
            self._lock.release()
            if watched:
                announce(self.key)

    def begin_read(self, operation: str) -> StoreConnection:
        """Begin a snapshot; end it with :meth:`end_read`."""
        connection = self._take_reader()
        try:
            connection.operation = operation
            if self.in_memory:
                connection.own_cursor.execute(dialect.READ_ONLY_ON)
            connection.begin(dialect.BEGIN_READ)
        except BaseException as error:
            self.end_read(connection)
            if isinstance(error, sqlite3.Error):
                raise store_error(error, connection) from error
            raise
        return connection

    def end_read(self, connection: StoreConnection) -> None:
        """End a snapshot."""
        try:
            connection.end(dialect.ROLLBACK)
        finally:
            self._return_reader(connection)

    def check_schema(self) -> None:
        """Raise SchemaVersionError or SchemaDriftError unless the file is as declared."""
        connection = self.begin_read("check_schema")
        try:
            guard.is_empty(connection.own_cursor, self.schema, self.path)
        except sqlite3.Error as error:
            raise store_error(error, connection) from error
        finally:
            self.end_read(connection)

    def data_version(self) -> tuple[int, int]:
        """Return what changes when another connection commits; reads nothing else.

        SQLite's number is one connection's own: another's begins anew. So it comes with the number
        of the connection, and is another one once a fork has closed that.
        """
        with self._version_lock:
            if self.closed:
                raise StoreClosedError(self.path)
            reader = self._version_reader
            if reader is None:
                reader = self._version_reader = self._open_reader()
                self._version_readers += 1
            try:
                version: int = reader.own_cursor.execute(dialect.DATA_VERSION).fetchall()[0][0]
            except sqlite3.Error as error:
                raise store_error(error, reader) from error
            return self._version_readers, version

    def check_not_writing(self) -> None:
        """Raise NestedTransactionError inside a write transaction of this thread."""
        if self._lock.is_mine:
            raise NestedTransactionError(
                "this thread is inside a transaction of this store, which would have to end first: "
                "wait outside of it"
            )

    def close(self) -> None:
        """Close every connection, after the write transaction that is running; idempotent.

        A reader's connection is closed when its snapshot ends.
        """
        if self.closed:
            return
        self._take_lock()
        try:
            self.closed = True
            with self._version_lock:
                self._close_version_reader()
            self._close_idle()
        finally:
            self._lock.release()
        self.watch.notify()

    def prepare_fork(self) -> None:
        """Close what is idle, so that no connection is carried into the child.

        SQLite keeps its view of a file's locks per process, and a child inherits that view
        without the locks: as long as one inherited connection exists, connections that the
        child opens itself believe in locks that nobody holds, and its commits are lost. So
        every connection is closed before the fork, and opened again by its next use on either
        side. What is inside a transaction can't be closed: see :meth:`leave_to_parent`.
        """
        self._locked_for_fork = self._version_locked_for_fork = False
        if self.closed or self.in_memory:
            return
        with suppress(NestedTransactionError):  # this thread's own transaction goes on
            self._locked_for_fork = self._lock.acquire(
                min(self._busy_timeout_s, forking.FORK_WAIT_S)
            )
        self._version_locked_for_fork = self._version_lock.acquire()
        self._close_version_reader()
        if self._locked_for_fork:
            self._close_idle()

    def after_fork_in_parent(self) -> None:
        """Let the writers and waiters of the parent go on."""
        if self._version_locked_for_fork:
            self._version_locked_for_fork = False
            self._version_lock.release()
        if self._locked_for_fork:
            self._locked_for_fork = False
            self._lock.release()

    def leave_to_parent(self) -> bool:
        """Give up everything inherited from the parent process; the next use opens anew.

        Returns whether a connection had to be carried over, inside a transaction. It is kept
        for life: closing it here, or letting it be collected, would harm the parent's file.
        """
        for connection in self._connections:
            forking.make_immortal(connection)
            if connection.standing is not None:
                connection.standing.abandon()
        carried = bool(self._connections) and not self.in_memory
        if self._queue is not None:
            self._queue.close()
        self.closed = self.closed or self.in_memory
        self._connections = []
        self._idle_readers = []
        self._lock = FairLock()
        self._queue = None
        self._writer = None
        self._version_lock = threading.Lock()
        self._version_reader = None
        self.watch = self._new_watch()
        return carried

    def _new_watch(self) -> Watch:
        # A database in memory has no other process; its commits are announced.
        return Watch(self.key, None if self.in_memory else self.data_version)

    def _close_version_reader(self) -> None:
        """Close the connection that reads the data version; the caller holds its lock."""
        if self._version_reader is not None:
            self._discard(self._version_reader)
            self._version_reader = None

    def _close_idle(self) -> None:
        """Close the connections that nobody uses; the caller holds the lock."""
        # The writer last: only it can empty the WAL and remove SQLite's sidecars.
        while self._idle_readers:
            self._discard(self._idle_readers.pop())
        if self._writer is not None:
            self._discard(self._writer)
            self._writer = None
        if self._queue is not None:
            self._queue.close()
            self._queue = None

    def _take_lock(self) -> None:
        started_s = monotonic()
        if not self._lock.acquire(self._busy_timeout_s):
            raise self._busy(started_s)

    def _busy(self, started_s: float) -> StoreBusyError:
        return StoreBusyError(self.path, round((monotonic() - started_s) * 1000))

    def _open_again(self) -> StoreConnection:
        """Open the writing connection that a fork has closed; raise if there is to be none."""
        if self.closed:
            raise StoreClosedError(self.path)
        if self.settings.read_only:
            raise ReadOnlyStoreError(self.path)
        self._writer = self._open_writer()
        return self._writer

    def _open_writer(self) -> StoreConnection:
        writer, self._queue = open_writer(self.path, self.schema, self.settings, self._connections)
        return writer

    def _open_reader(self) -> StoreConnection:
        return open_reader(self.path, self.schema, self.settings, self._connections)

    def _take_reader(self) -> StoreConnection:
        if self.in_memory:
            self._take_lock()
            try:
                return self._writer or self._open_again()
            except BaseException:
                self._lock.release()
                raise
        if self.closed:
            raise StoreClosedError(self.path)
        try:
            return self._idle_readers.pop()
        except IndexError:
            return self._open_reader()

    def _return_reader(self, connection: StoreConnection) -> None:
        if self.in_memory:
            connection.own_cursor.execute(dialect.READ_ONLY_OFF)
            self._lock.release()
        elif self.closed or len(self._idle_readers) >= _MAX_IDLE_READERS:
            self._discard(connection)
        else:
            self._idle_readers.append(connection)

    def _discard(self, connection: StoreConnection) -> None:
        self._connections.remove(connection)
        connection.dispose()
