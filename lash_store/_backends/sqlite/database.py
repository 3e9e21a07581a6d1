"""One SQLite database that this process has open, for however many stores: opening, closing, forks.

There is one connection that writes, in turn (``writing``), and a few that only read
(``reading``). What is idle may be closed to keep a bound, and is opened again by its next use. A
database in memory has one connection for everything, so its reads take turns as well.
"""

from __future__ import annotations

import sqlite3
import sys
import threading
import weakref
from contextlib import contextmanager, suppress
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import msgspec

from lash_store._backends.sqlite import forking, guard
from lash_store._backends.sqlite.begun import own_transaction
from lash_store._backends.sqlite.connections import Connections
from lash_store._backends.sqlite.driver import store_error
from lash_store._backends.sqlite.files import check_only_name, open_sidecars, set_sidecars_aside
from lash_store._backends.sqlite.reading import Readers
from lash_store._backends.sqlite.turns import Hold
from lash_store._backends.sqlite.writing import Writer
from lash_store._kernel.calls import LOOK_AGAIN_S
from lash_store._kernel.threads import CHORES, TIMER, asked_since_s
from lash_store.errors import (
    NestedTransactionError,
    SchemaVersionError,
    StoreBusyError,
    StoreOpenError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lash_store._kernel.options import Settings
    from lash_store._kernel.schema import Schema

_DROPPED_TRIES: Final = 20
"""How often a dropped database is looked at again, until nobody is at work on it."""


class OpenDatabase:
    """One open database, usable from any thread; see the head of this module."""

    def __init__(self, schema: Schema, path: str) -> None:
        self.path = path
        self.prefix = schema.prefix
        self._made = {schema}
        """What this database was opened for; in memory, what it has."""

        self.handles: weakref.WeakSet[Any] = weakref.WeakSet()
        """The open stores that stand on it."""

        self.is_dropped = False
        """Whether there is none any more, and none may come."""

        self._use(Connections(schema, path))
        forking.databases[id(self)] = self  # before it is open: a fork has to wait for that

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        """Have closed what stores leave open that nobody has closed (K-OPEN-5).

        Each connection is in a circle with its own cursor: until the collector comes, which may be
        never, its file would stay open, a directory could not delete it, and a fork would carry it over
        without seeing it. A thread of the library's closes it: what a signal handler raises in a
        finalizer is lost. What the collector finds, and what somebody still uses, is closed by it.
        """
        if is_finalizing():
            return  # the interpreter closes what is left, and has taken our names already
        with suppress(AttributeError):  # it was never made
            is_collected = forking.databases.get(id(self)) is not self
            if self.connections.all and not (self.in_memory or self.closed or is_collected):
                self.is_dropped = True
                CHORES.submit(lambda: self._close_dropped(_DROPPED_TRIES))

    def _close_dropped(self, tries: int) -> None:
        # A store may have been opened on it as its last one went.
        if not self.connections.all or any(True for _ in self.handles) or not tries:
            return
        self.writer.turns.forget_the_gone()  # a block that was never left
        if not self.close_if_idle():
            # Whoever let go of it last may be at work on it still.
            again = partial(self._close_dropped, tries - 1)
            TIMER.after(LOOK_AGAIN_S, lambda: CHORES.submit(again))

    def _use(self, connections: Connections) -> None:
        self.connections = connections
        self.in_memory = connections.in_memory
        self.writer = Writer(connections)
        self.readers = Readers(connections, self.writer.submit_all)
        self._opening = threading.RLock()
        self._fork_hold: Hold | None = None
        self._is_locked_for_fork = False

    @property
    def key(self) -> str:
        """What tells this database from the others that this process has open."""
        return f"{self.path} {id(self)}" if self.in_memory else self.path

    @property
    def closed(self) -> bool:
        """Whether its last store was closed."""
        return self.connections.closed

    @property
    def used_s(self) -> float:
        """When it was last written to, or read from, on the monotonic clock."""
        return max(self.connections.used_s, self.connections.read_s)

    @property
    def is_written_here(self) -> bool:
        """Whether this thread is inside a write transaction on it."""
        return self.writer.turns.is_mine

    @property
    def all_connections(self) -> Sequence[object]:
        """The connections that are open on it."""
        return self.connections.all

    def busy_error(self, since_s: float, _: object = None) -> StoreBusyError:
        """Return the error of whoever has waited in vain since `since_s`."""
        waited_ms = round((monotonic() - since_s) * 1000)
        return StoreBusyError(self.path, waited_ms, *own_transaction(self.path))

    def open(self, schema: Schema, settings: Settings) -> None:
        """Open it for one more store, whose schema and durability have to be those that it has.

        What is open already is only looked at, and not changed.
        """
        connections = self.connections
        with self._opening_within(settings) as left:
            self._check_settings(settings)
            connections.check_file()
            lacks = connections.settings is not None and self._lacks(schema, left)
            known = connections.settings
            if not settings.read_only and (known is None or known.read_only):
                # Nobody can be writing. One that was closed meanwhile the next write opens, in its turn.
                connections.open_writer(left)
                connections.settings = settings
            elif known is None:
                self.readers.add(connections.open_first_reader(schema, left))
                connections.settings = settings
            if lacks:
                self._add(schema, left)
            if schema.kind == connections.schema.kind and schema.extras:
                connections.schema = schema  # what is opened again has them

    @contextmanager
    def _opening_within(self, settings: Settings) -> Iterator[Settings]:
        """Have nobody else open it; gives the settings with what is left of the budget."""
        since_s, budget_s = asked_since_s(), settings.busy_timeout_ms / 1000
        try:  # around it: an interrupt may strike as soon as it is had
            if not self._opening.acquire(timeout=max(0.0, since_s + budget_s - monotonic())):
                raise self.busy_error(since_s)
            left_ms = round(max(0.0, since_s + budget_s - monotonic()) * 1000)
            yield msgspec.structs.replace(settings, busy_timeout_ms=left_ms)
        except StoreBusyError as busy:
            waited_ms = round((monotonic() - since_s) * 1000) if budget_s else busy.waited_ms
            raise StoreBusyError(busy.path, waited_ms, busy.waited_for) from busy.__cause__
        finally:
            try:  # noqa: SIM105 # reason: a call before it would let an interrupt in once more
                self._opening.release()
            except RuntimeError:
                pass  # another thread has it still

    @contextmanager
    def _if_nobody_opens(self) -> Iterator[bool]:
        """Tell whether nobody is opening it for one more store, nor does meanwhile."""
        is_had = self._opening.acquire(blocking=False)
        try:
            yield is_had
        finally:
            if is_had:
                self._opening.release()

    def _check_settings(self, settings: Settings) -> None:
        known = self.connections.settings
        if known is not None and known.immutable != settings.immutable:
            raise StoreOpenError(
                self.path,
                f"it is open in this process with immutable={known.immutable}: it can't be "
                f"{settings.immutable} as well",
            )
        if settings.read_only:
            return
        synchronous = self.connections.synchronous
        if synchronous not in (None, settings.synchronous):
            raise StoreOpenError(
                self.path,
                f"it is open in this process with synchronous={synchronous!r}, and how far "
                f"COMMIT goes belongs to the file: it can't be {settings.synchronous!r} as well",
            )
        if not self.in_memory and not settings.linked:
            check_only_name(self.path)

    def _lacks(self, schema: Schema, settings: Settings) -> bool:
        """Check what is open already, as opening it would; tell whether tables are to be made."""
        connections = self.connections
        if self.in_memory:
            # Nobody but us has made it, and its one connection may be another thread's now.
            if schema in self._made:
                return False
            if self.prefix or schema.kind == connections.schema.kind:
                return True
            mine = connections.schema
            raise SchemaVersionError(
                schema.kind, schema.version, mine.version, self.path, is_kind=mine.kind
            )
        with self.readers.looking(settings.busy_timeout_ms) as connection:
            try:
                lacking = connection.lacking(schema, adopt=settings.adopt)
            except sqlite3.Error as error:
                raise store_error(error, connection) from error
        if settings.read_only or not settings.create:
            lacking.require_readable(schema, self.path)
        if settings.read_only:
            return False
        return bool(lacking) and (bool(self.prefix) or not lacking.is_empty)

    def _add(self, schema: Schema, settings: Settings) -> None:
        """Make the tables of one more kind, or what an application has declared beside them."""
        hold = Hold()
        self.writer.begin(self, hold, budget_s=settings.busy_timeout_ms / 1000)
        connection = self.connections.writer
        assert connection is not None
        committed = False
        try:
            guard.ensure_schema(connection.own_cursor, schema, self.path, adopt=settings.adopt)
            committed = True
        except sqlite3.Error as error:
            raise store_error(error, connection) from error
        finally:
            self.writer.end(hold, connection, commit=committed)
        self._made.add(schema)

    def close(self, hold: Hold) -> None:
        """Close every connection, in the turn of `hold`; a reader's when its snapshot ends."""
        assert self.writer.turns.is_held_by(hold)
        self.connections.closed = True
        self.connections.lock_version_reader(timeout_s=-1)
        self.connections.unlock_version_reader()
        with self._if_nobody_opens() as is_all_held:
            self._close_idle(is_all_held=is_all_held)
        self.connections.watch.notify_of_end()

    def close_if_idle(self) -> bool:
        """Close what is open if nobody uses it; the next use opens it again."""
        hold, turns = Hold(), self.writer.turns
        if self.in_memory or self.readers.in_use or self.connections.watch.waiters:
            return False
        if not self._opening.acquire(blocking=False):
            return False
        try:
            if not turns.try_take(hold):
                return False
            try:
                # Whoever opens one there may be making room at the same time, and wait for us.
                if not self.connections.lock_version_reader(timeout_s=0):
                    return False
                self.connections.unlock_version_reader()
                self._close_idle()
            finally:
                self.writer.give_back(hold)
        finally:
            self._opening.release()
        return True

    def let_go(self) -> None:
        """Close what is open on a lost file; StoreOpenError if somebody is still at work on it.

        SQLite would read the old file's WAL as the new one's: both stand at the same path.
        """
        sidecars, known = open_sidecars(self.path), self.connections.sidecars
        if not self.close_if_idle():
            raise StoreOpenError(
                self.path,
                "another file stood there that stores of this process are still at work on; "
                "close them first",
            )
        set_sidecars_aside(self.path, sidecars, known)

    def _close_idle(self, *, is_all_held: bool = False) -> None:
        """Close the connections that nobody uses; the turn is this thread's."""
        # The writer last: only it can empty the WAL and remove SQLite's sidecars.
        self.readers.close_idle(is_all_held=is_all_held)
        self.connections.close_writer()

    # Forks.

    @property
    def _has_nothing_open(self) -> bool:
        # One that was closed may be about it: a child would inherit a mutex of SQLite's that is locked for ever.
        connections = self.connections
        return self.closed and not connections.all and connections.queue is None

    @property
    def _has_nothing_to_close(self) -> bool:
        return self.in_memory or self._has_nothing_open

    def hold_writes(self, until_s: float) -> None:
        """Take the turn for a fork, so that no connection is carried into the child.

        SQLite keeps its view of a file's locks per process, and a child inherits that view
        without the locks: as long as one inherited connection exists, connections that the
        child opens itself believe in locks that nobody holds, and its commits are lost. So
        every connection is closed before the fork, and opened again by its next use on either
        side. What is inside a transaction can't be closed: see :meth:`leave_to_parent`.
        """
        self._fork_hold = None
        if self._has_nothing_open:  # in memory too it is at SQLite's mutexes
            return
        hold = Hold()
        try:
            self.writer.take(self, hold, budget_s=max(0.0, until_s - monotonic()))
        except (NestedTransactionError, StoreBusyError):
            pass  # this thread's own transaction goes on, and so does one that takes too long
        else:
            self._fork_hold = hold

    def hold_watch(self, until_s: float) -> None:
        """Let nobody look for others' commits: who does may have to open something for it."""
        if self._has_nothing_to_close or self._is_locked_for_fork:
            return
        left_s = max(0.0, until_s - monotonic())
        self._is_locked_for_fork = self.connections.lock_version_reader(left_s)

    def close_for_fork(self, until_s: float) -> None:
        """Close what is idle, and what is read as it ends."""
        if self._has_nothing_to_close:
            return
        self.hold_watch(until_s)
        with self._if_nobody_opens() as is_had:
            is_all_held = is_had and self._is_locked_for_fork and self._fork_hold is not None
            self.readers.drain(until_s, is_all_held=is_all_held)
        if self._fork_hold is not None:
            self.readers.close_idle()
            self.connections.close_writer()

    def after_fork_in_parent(self) -> None:
        """Let those who read, write and wait in the parent go on."""
        self.readers.resume()
        if self._is_locked_for_fork:
            self._is_locked_for_fork = False
            self.connections.unlock_version_reader()
        hold, self._fork_hold = self._fork_hold, None
        if hold is not None:
            self.writer.give_back(hold)

    def leave_to_parent(self) -> bool:
        """Give up everything inherited from the parent process; the next use opens anew.

        What waited is the parent's. Returns whether a connection had to be carried over, inside a
        transaction. It is kept for life: closing it here, or letting it be collected, would harm
        the parent's file.
        """
        inherited = self.connections
        for connection in inherited.all:
            forking.make_immortal(connection)
            if connection.standing is not None:
                connection.standing.abandon()
        carried = bool(inherited.all) and not self.in_memory
        if inherited.queue is not None:
            inherited.queue.close()
        self._use(inherited.after_fork())
        if self.in_memory:  # it does not follow into a child
            for handle in self.handles:
                handle.closed = True
        return carried
