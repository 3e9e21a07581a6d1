"""The connections that one open database has, and which file they are on."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from errno import ENOENT, ENOTDIR
from os import stat
from time import monotonic
from typing import TYPE_CHECKING, NoReturn, TypeAlias

import msgspec

from lash_store._backends.sqlite import opened
from lash_store._backends.sqlite.births import born_ns
from lash_store._backends.sqlite.driver import data_version, store_error
from lash_store._backends.sqlite.files import (
    IN_MEMORY,
    WAL_SUFFIX,
    Identity,
    Sidecar,
    identity_of,
    open_error,
    sidecars_of,
)
from lash_store._backends.sqlite.noticing import FileNotices
from lash_store._backends.sqlite.opening import open_reader, open_writer
from lash_store._backends.sqlite.wal import Wal
from lash_store._kernel.logs import LONG_WAIT_S, Note, done_again, long_wait, no_queue, tell
from lash_store._kernel.posix import require_systems_own
from lash_store._kernel.watching import SOON_S, Concern, Version, Watch
from lash_store.errors import LashStoreError, StoreBusyError, StoreClosedError, StoreLostError

if TYPE_CHECKING:
    from lash_store._backends.sqlite.connection import StoreConnection
    from lash_store._backends.sqlite.fairness import WriteQueue
    from lash_store._kernel.options import Settings, Synchronous
    from lash_store._kernel.schema import Schema


News: TypeAlias = tuple[Collection[Concern], list[Note]]
"""What a transaction has touched, and what is to be logged of it."""


class Connections:
    """One that writes, some that only read, and one that looks for others' commits."""

    def __init__(self, schema: Schema, path: str) -> None:
        self.schema = schema
        self.path = path
        self._path_bytes = os.fsencode(path)
        self.in_memory = path == IN_MEMORY
        self.closed = False
        self.settings: Settings | None = None
        """How those that come are opened: as the first was."""

        self.synchronous: Synchronous | None = None
        """How far COMMIT goes, once it has been opened for writing."""

        self.identity: Identity | None = None
        """Which file it is, whatever stands at its path; None in memory, and before it is open."""

        self.used_s = 0.0
        """When it was last written to, on the monotonic clock."""

        self.read_s = 0.0
        """When it was last read from."""

        self.all: list[StoreConnection] = []
        self.writer: StoreConnection | None = None
        self.queue: WriteQueue | None = None
        self.read_version: Callable[[], Version | None] = self.data_version
        """Reads what changes when somebody else commits; the writer, once there is one, knows better."""

        self.watch = (
            Watch(None)
            if self.in_memory
            else Watch(self._version, teller=FileNotices(path + WAL_SUFFIX))
        )
        self.looked_s = 0.0
        """When whoever had the turn last looked what others have committed."""

        self.wal = Wal(path)
        self.notes: list[Note] = []
        """What is to be logged of the turns themselves, once nobody has one."""

        self.born_ns: int | None = None
        """When its file was made, if the system says so."""

        self.sidecars: set[Sidecar] = set()
        """What of SQLite's own stood beside it when something was opened last."""

        self._writers = 0
        self._version_lock = threading.RLock()
        self._version_reader: StoreConnection | None = None
        self._version_readers = 0

    def after_fork(self) -> Connections:
        """Return the same without any connection, for a child, which opens anew."""
        anew = Connections(self.schema, self.path)
        anew.closed = self.closed or self.in_memory
        anew.settings, anew.synchronous = self.settings, self.synchronous
        anew.identity, anew.sidecars, anew.born_ns = self.identity, self.sidecars, self.born_ns
        return anew

    def open_writer(self, settings: Settings) -> StoreConnection:
        """Open the one that writes."""
        opened.make_room(self.all)
        self.used_s = monotonic()
        is_new = self.identity is None
        with self._of_the_file_that_was():
            self.writer, self.queue = open_writer(
                self.path, self.schema, settings, self.all, is_new=is_new
            )
        if self.queue is not None and self.queue.problem is not None:
            self.notes.append(no_queue(self.path, self.queue.problem))
        self._writers += 1
        self.synchronous = settings.synchronous
        if self.settings is None or self.settings.read_only:
            self.settings = settings
        self.identity = self.identity or identity_of(self.path)
        return self.writer

    def open_reader(self, busy_timeout_ms: int) -> StoreConnection:
        """Open one more that only reads, and waits so long for what keeps it from that."""
        if self.closed:
            raise StoreClosedError(self.path)
        assert self.settings is not None
        opened.make_room(self.all)
        settings = msgspec.structs.replace(self.settings, busy_timeout_ms=busy_timeout_ms)
        with self._of_the_file_that_was():
            return open_reader(self.path, self.schema, settings, self.all, is_known=True)

    @contextmanager
    def _of_the_file_that_was(self) -> Iterator[None]:
        """Open something again: what hinders that is that the file is lost, if it is (K-OPEN-12)."""
        # While nothing of it is open, its inode may become another file's.
        if (
            self.born_ns is not None
            and not self.all
            and born_ns(self.path) not in {None, self.born_ns}
        ):
            self._raise_replaced()
        try:
            yield
        except LashStoreError:
            self.check_file()
            raise
        if not self.in_memory:
            self._note_file()

    def open_first_reader(self, schema: Schema, settings: Settings) -> StoreConnection:
        """Open one that only reads, of a database that nobody writes to, and check it."""
        opened.make_room(self.all)
        self.read_s = monotonic()
        connection = open_reader(self.path, schema, settings, self.all, is_known=False)
        self.settings = settings
        self.identity = self.identity or identity_of(self.path)
        self._note_file()
        return connection

    def _note_file(self) -> None:
        self.sidecars = sidecars_of(self.path)
        if self.born_ns is None:
            self.born_ns = born_ns(self.path)

    def readers(self) -> list[StoreConnection]:
        """Return those that only read, the one for the data version aside."""
        others = (self.writer, self._version_reader)
        return [each for each in list(self.all) if each not in others]

    def check_not_beside(self) -> None:
        """Raise NestedTransactionError inside a transaction of this thread under another prefix."""
        opened.check_not_beside(self.path, self.schema.prefix)

    def checked_writer(self, budget_s: float) -> StoreConnection:
        """Return the one that writes, on the file that was opened; the turn is this thread's.

        If it has to be opened, what keeps it from that is waited for within `budget_s`.
        """
        identity, connection = self.identity, self.writer
        if identity is not None:  # what check_file() does, on the hottest path there is
            try:
                found = stat(self._path_bytes)
            except OSError as error:
                require_systems_own(error)
                found = None
            if (
                found is None
                or found.st_ino != identity[1]
                or found.st_dev != identity[0]
                or not found.st_size
            ):
                self.check_file()
        if connection is not None:
            return connection
        if self.closed:
            raise StoreClosedError(self.path)
        assert self.settings is not None
        busy_timeout_ms = round(budget_s * 1000)
        return self.open_writer(
            msgspec.structs.replace(self.settings, busy_timeout_ms=busy_timeout_ms)
        )

    def check_file(self) -> None:
        """Raise StoreLostError unless the path still leads to the file that was opened (K-OPEN-9).

        By ``stat`` alone: closing a descriptor of the file would drop SQLite's locks on it.
        """
        if self.identity is None:
            return
        try:
            found = stat(self.path)
        except OSError as error:
            if error.errno not in {ENOENT, ENOTDIR}:
                raise open_error(
                    self.path, error
                ) from error  # it can't be seen, for a while perhaps
            cause = f"its file was removed or moved ({error.strerror})"
            raise StoreLostError(self.path, cause) from error
        device, inode = self.identity
        if found.st_ino != inode or found.st_dev != device:
            self._raise_replaced()
        if not found.st_size:
            raise StoreLostError(self.path, "its file is empty now; nothing was written to it")

    def _raise_replaced(self) -> NoReturn:
        cause = "another file stands in its place; open that one anew to use it"
        raise StoreLostError(self.path, cause)

    def note_wait(self, operation: str | None, since_s: float) -> None:
        """Note a call that has got its turn, if that took long; in its turn."""
        waited_s = monotonic() - since_s
        if waited_s >= LONG_WAIT_S:
            self.notes.append(long_wait(self.path, operation, waited_s))

    def note_undone(self, operations: Sequence[str | None]) -> None:
        """Note calls that were undone together, and are done again; in a turn."""
        self.notes.append(done_again(self.path, operations))

    def take_news(self) -> News | None:
        """Return what the transaction that has ended is to be told for, if anything; in its turn.

        Between two transactions: the moment to look at the WAL as well.
        """
        writer = self.writer
        if writer is None:
            return None
        if self.used_s >= self.wal.due_s and not writer.in_transaction:
            beside_others = self.queue is not None and self.queue.is_contended(self.used_s)
            self.notes += self.wal.shorten(writer, beside_others=beside_others)
        if not (self.watch.waiters or writer.notes or self.notes):
            return None
        notes = self.notes + writer.notes
        self.notes.clear()
        writer.notes.clear()
        return self._take_touched(writer), notes

    def _take_touched(self, writer: StoreConnection) -> Collection[Concern]:
        """Return what it has touched, if anybody waits.

        And look, now and then, what others have committed: under load the timer never gets a turn.
        """
        if not self.watch.waiters:
            return ()
        touched, writer.touched = writer.touched, set()
        if not self.in_memory and monotonic() - self.looked_s > SOON_S:
            with suppress(sqlite3.Error):  # the next one will see it
                self.watch.see(self.version_of(writer))
        return touched

    def announce(self, news: News | None) -> None:
        """Tell those who wait for it what may have been committed, and log what is to be logged."""
        if news is not None:
            touched, notes = news
            if touched:
                self.watch.announce(touched)
            tell(notes)

    def _version(self) -> Version | None:
        return self.read_version()

    def version_of(self, writer: StoreConnection) -> Version:
        """Return what changes when another connection commits than the one that writes, in its turn."""
        self.looked_s = monotonic()
        return "writer", (self._writers, data_version(writer.own_cursor))

    def data_version(self) -> Version | None:
        """Return what changes when another connection commits; reads nothing else. None: not to be had now.

        SQLite's number is one connection's own: another's begins anew. So it comes with the number
        of the connection, and is another one once a fork has closed that.
        """
        with self._version_lock:
            if self.closed:
                raise StoreClosedError(self.path)
            # Or a stranger's file would be opened in its place, and a wait never be told.
            self.check_file()
            reader = self._version_reader
            if reader is None:
                try:  # the timer asks, which waits for nobody
                    reader = self._version_reader = self.open_reader(busy_timeout_ms=0)
                except StoreBusyError:
                    return None
                self._version_readers += 1
            try:
                version = data_version(reader.own_cursor)
            except sqlite3.Error as error:
                raise store_error(error, reader) from error
            return "reader", (self._version_readers, version)

    def discard(self, connection: StoreConnection) -> None:
        """Close one for good.

        It is on the list until it is closed: a fork waits for that, or the child would inherit a
        mutex of SQLite's that is locked for ever.
        """
        try:
            connection.dispose()
        finally:
            self.all.remove(connection)

    def lock_version_reader(self, timeout_s: float) -> bool:
        """Close the one that looks for commits, and let nobody open it until it is unlocked.

        False, with nothing done, if it was in use for all of `timeout_s`.
        """
        if not self._version_lock.acquire(timeout=timeout_s):
            return False
        if self._version_reader is not None:
            self.discard(self._version_reader)
            self._version_reader = None
        return True

    def unlock_version_reader(self) -> None:
        """Let it be opened again."""
        self._version_lock.release()

    def close_writer(self) -> None:
        """Close the one that writes, and leave the queue; the turn is this thread's."""
        if self.writer is not None:
            connection, self.writer = self.writer, None
            self.discard(connection)
        if self.queue is not None:
            self.queue.close()
            self.queue = None
