"""One PostgreSQL database that this process has open, for however many stores.

A bounded number of connections, made when they are needed and kept for the next call; no thread
and no connection belongs to a store. Who of this process is at the database, and who waits, is in
``turns``.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, Final, NamedTuple

import psycopg
from psycopg.conninfo import make_conninfo
from sqlalchemy import URL
from sqlalchemy.exc import ArgumentError

from lash_store._backends.apart import shares
from lash_store._backends.postgresql import dialect, guard
from lash_store._backends.postgresql.blocks import Blocks
from lash_store._backends.postgresql.connection import StoreConnection
from lash_store._backends.postgresql.driver import (
    code_of,
    first_line,
    is_lost,
    opening_error,
    store_error,
)
from lash_store._backends.postgresql.groups import OWN_WORK, SERVERS
from lash_store._backends.postgresql.turns import Turns
from lash_store._backends.urls import without_password
from lash_store._kernel.calls import Call
from lash_store._kernel.options import Settings
from lash_store._kernel.posix import in_forked_child
from lash_store._kernel.schema import Schema
from lash_store._kernel.threads import Pool
from lash_store._kernel.watching import Version, Watch
from lash_store.errors import (
    ConnectionLostError,
    StoreBusyError,
    StoreClosedError,
    StoreEmptyError,
    StoreOpenError,
)

POLLS: Final = Pool("lash-store-poll", 8, spare=24)
"""Looks whether others have committed: that may wait for a network, so not on the timer."""


class Key(NamedTuple):
    """What tells an open database from others: where it is, and what belongs to its connections."""

    url: str
    schema: str | None
    prefix: str
    pool_size: int
    prepare_threshold: int | None
    application_name: str

    @classmethod
    def of(cls, url: URL, settings: Settings) -> Key:
        """Return that of a URL, opened with these options."""
        return cls(
            url.render_as_string(hide_password=False),
            settings.schema,
            settings.prefix,
            settings.pool_size,
            settings.prepare_threshold,
            settings.application_name,
        )


class OpenDatabase:
    """One open database, usable from any thread; see the head of this module."""

    def __init__(self, url: URL, key: Key) -> None:
        self.key = key
        self.path = without_password(url)
        self.url = url
        self._server_name = ""
        """Which database of which server it is, as the connection says; known once it is open."""

        self.place = ""
        """The schema and the prefix: what the numbers of its locks are made of; known once it is open."""
        self.schema_name = ""
        """The schema that our tables are in, by its name."""

        self._looks_first: str | None = None
        """The same as it is written without quotes: whatever a consumer's transaction looks into, it is that."""

        self.bounds: tuple[str, ...] = ()
        """What bounds a transaction of the library's own, where nobody else has."""

        self.handles: weakref.WeakSet[Any] = weakref.WeakSet()
        """The open stores that stand on it."""

        self.held: set[Schema] = set()
        """The kinds whose tables were compared since it was opened."""

        self.opening = threading.RLock()
        self.closed = False
        self._server = (0, monotonic())
        self._renew()

    def _renew(self) -> None:
        self._idle: list[StoreConnection] = []
        self._watcher: StoreConnection | None = None
        self._polling = threading.Lock()
        self._ensuring = threading.Lock()
        self.groups = Blocks(self)
        self.turns = Turns(self.key.pool_size, self.groups.start)
        self.watch = Watch(self._read_version, POLLS)

    @property
    def whereabouts(self) -> str:
        """What is the same for all that this process has open in one place, whatever the options are."""
        here = f"{self._server_name} {self.place}"
        return f"{here} {id(self)}" if self in apart else here

    def twins(self) -> list[OpenDatabase]:
        """Return what else of the same place this process has open, with other options."""
        if len(databases) < 2:  # noqa: PLR2004 # reason: this one
            return []
        here = self.whereabouts
        return [e for e in list(databases.values()) if e is not self and e.whereabouts == here]

    def server_ms(self) -> int:
        """Return the server's time as far as it is known here, without asking; see ``server_ms`` of a connection."""
        at_ms, read_s = self._server
        return at_ms + int((monotonic() - read_s) * 1000)

    def busy_error(self, since_s: float, in_line: Call | None = None) -> StoreBusyError:
        """Return the error of whoever has waited in vain since `since_s`: for a lock, or for a connection."""
        waited_ms = round((monotonic() - since_s) * 1000)
        if in_line is None or self.turns.has_connection(in_line):
            return StoreBusyError(self.path, waited_ms)
        size = self.key.pool_size
        return StoreBusyError(
            self.path, waited_ms, f"a connection: other calls have them (pool_size={size})"
        )

    def note_time(self, connection: StoreConnection) -> None:
        """Remember the server's time, as a transaction has read it."""
        self._server = (connection.server_ms(), monotonic())

    def begin(
        self,
        begin: Callable[[StoreConnection], None],
        had: Callable[[StoreConnection], object],
    ) -> StoreConnection:
        """Begin a transaction on a connection that is free; of a turn that was had.

        `had` is told of the connection, before an interrupt can come between the two.

        One that was idle may have been lost meanwhile, by a server that was restarted, say: nothing
        was begun on it, so another is tried, once.
        """
        connection, was_idle = self._take()
        try:
            begin(connection)
            self.note_time(connection)
            had(connection)
        except psycopg.Error as error:
            # Before it is given back: one that can't be used again is closed, and was not lost.
            explained, was_lost = store_error(error, connection), is_lost(error, connection)
            self.give_back(connection)
            if not (was_idle and was_lost):
                raise explained from error
            self._close_idle()
            return self.begin(begin, had)
        except BaseException:
            self.give_back(connection)
            raise
        return connection

    def give_back(self, connection: StoreConnection) -> None:
        """Keep a connection for the next transaction, if one can begin on it."""
        if connection.is_idle and not self.closed:
            self._idle.append(connection)
        else:
            connection.discard()

    def _take(self) -> tuple[StoreConnection, bool]:
        if self.closed:
            raise StoreClosedError(self.path)
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:
                break  # another thread was quicker
            if connection.is_idle:
                return connection, True
        return self._connect_again(), False

    def _connect_again(self) -> StoreConnection:
        try:
            return self._connect()
        except psycopg.Error as error:
            # It was open: a server that is away for a moment is no reason to give anything up.
            raise ConnectionLostError(self.path, code_of(error), first_line(error)) from error

    def connect(self) -> StoreConnection:
        """Open one more connection; StoreOpenError says why that can't be done."""
        try:
            return self._connect()
        except psycopg.Error as error:
            raise StoreOpenError(self.path, f"{first_line(error)} ({code_of(error)})") from error
        except ArgumentError as error:  # SQLAlchemy's, of a port that is no number, say
            raise StoreOpenError(self.path, str(error)) from error

    def _connect(self) -> StoreConnection:
        key = self.key
        _, options = dialect.dialect_for(key.prefix).create_connect_args(self.url)
        connection = StoreConnection.connect(
            make_conninfo(
                **{"application_name": key.application_name, **options, "client_encoding": "utf8"}
            ),
            autocommit=True,
            prepare_threshold=key.prepare_threshold,
        )
        connection.adopt(
            self.path,
            self.place,
            prefix=key.prefix,
            schema=key.schema or self._looks_first,
            compared=self.held,
        )
        return connection

    @contextmanager
    def _apart(self) -> Iterator[StoreConnection]:
        """Lend a connection of its own, outside of the turns: for opening."""
        connection = self.connect()
        try:
            yield connection
        finally:
            connection.discard()

    def ensure(self, schema: Schema, settings: Settings) -> None:
        """Make a kind's tables, or compare them, on a connection of its own.

        One at a time, and nobody else waits for that: another process may have the lock of making them.
        """
        since_s = monotonic()
        if not self._ensuring.acquire(timeout=settings.busy_timeout_ms / 1000):
            raise StoreBusyError(self.path, round((monotonic() - since_s) * 1000))
        try:
            if schema not in self.held:
                self._ensure(schema, settings)
        finally:
            self._ensuring.release()

    def _ensure(self, schema: Schema, settings: Settings) -> None:
        with self._apart() as connection:
            cursor, name, first = connection.own_cursor, self.schema_name, self._looks_first
            try:
                if not self.place:
                    name = guard.server_place(cursor, self.path, settings.schema)
                    ((first,),) = cursor.execute(dialect.LOOKS_FIRST).fetchall()
                    ((is_unbound,),) = cursor.execute(dialect.IDLES_FOR_EVER).fetchall()
                    self.bounds = (dialect.BOUND_IDLE,) if is_unbound else ()
                connection.begin_read(budget_ms=settings.busy_timeout_ms)
                makes = guard.needs_making(cursor, schema, self.path, name)
                connection.end(commit=False)
                if makes and (settings.read_only or not settings.create):
                    raise StoreEmptyError.of(self.path, schema.kind)
                if makes:
                    connection.begin_write(
                        (),
                        budget_ms=settings.busy_timeout_ms,
                        setting=(dialect.FULL, *self.bounds),
                    )
                    guard.ensure_schema(cursor, schema, self.path, name)
                    connection.end(commit=True)
            except psycopg.Error as error:
                raise opening_error(error, connection, settings.schema) from error
            if not self.place:
                # Only now: where it is to be is looked up anew after an opening that has failed.
                at = connection.info
                self._server_name = f"{at.hostaddr or at.host} {at.port} {at.dbname}"
                self.schema_name, self._looks_first = name, first
                self.place = f"{name}.{self.key.prefix}"
            self.note_time(connection)
        self.held.add(schema)

    # Waiting for others' commits.

    def _read_version(self) -> Version | None:
        if self.closed:
            raise StoreClosedError(self.path)
        with self._polling:
            watcher, self._watcher = self._watcher, None
            was_there = watcher is not None and watcher.is_idle
            if watcher is None or not was_there:
                watcher = self._connect_again()
            try:
                version = watcher.own_cursor.execute(dialect.VERSION).fetchall()[0][0]
            except psycopg.Error as error:
                explained, was_lost = store_error(error, watcher), is_lost(error, watcher)
                watcher.discard()
                if not (
                    was_there and was_lost
                ):  # as in begin(): it may have been lost while it was idle
                    raise explained from error
            else:
                self._watcher = watcher
                if self.closed:
                    self._close_watcher()
                return "snapshot", version
        return self._read_version()

    # The end.

    def close(self) -> None:
        """Close every connection that nobody uses; those in use as their transactions end."""
        self.closed = True
        self._close_idle()
        self._close_watcher()
        self.watch.notify_of_end()

    def _close_watcher(self) -> None:
        # One that is looking now, on a server that may hang, closes it itself.
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.discard()

    def _close_idle(self) -> None:
        while self._idle:
            self._idle.pop().discard()

    def after_fork(self) -> None:
        """Begin without connections: those that were open are the parent's, and so is what waited.

        They are kept for life, and never touched: closing one would end the parent's session.
        """
        inherited = [*self._idle, *([] if self._watcher is None else [self._watcher])]
        _left_to_parents.extend((inherited, self.groups, self.turns))
        for connection in self.groups.at_work():
            if connection.standing is not None:
                connection.standing.abandon()
        self.opening = threading.RLock()
        self._renew()


_left_to_parents: Final[list[object]] = []

databases: Final[weakref.WeakValueDictionary[Key, OpenDatabase]] = weakref.WeakValueDictionary()
"""What this process has open, shared by all stores that are opened alike."""

apart: Final[weakref.WeakSet[OpenDatabase]] = weakref.WeakSet()
"""What is shared with nobody: it counts as another process's."""

lock = threading.RLock()
"""Held while an entry is looked up or made; never while anything waits."""


def database_of(url: URL, key: Key) -> OpenDatabase:
    """Return what is open at a URL, or is to be opened."""
    with lock:
        if not shares.get():
            made = OpenDatabase(url, key)
            apart.add(made)
            return made
        found = databases.get(key)
        if found is None or found.closed:
            found = databases[key] = OpenDatabase(url, key)
        return found


def forget(database: OpenDatabase) -> None:
    """Let the next one who opens the URL open it anew."""
    with lock:
        if databases.get(database.key) is database:
            del databases[database.key]


@in_forked_child
def _renew_all() -> None:
    global lock  # noqa: PLW0603 # reason: the thread that held it does not exist in the child
    lock = threading.RLock()
    for pool in (POLLS, SERVERS, OWN_WORK):
        pool.renew()
    for each in (*databases.values(), *apart):
        each.after_fork()
