"""What one store has of an open database: its own budget, rights and end."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from threading import get_ident
from typing import TYPE_CHECKING, Any, TypeVar

from lash_store._backends.apart import shares
from lash_store._backends.handles import BaseHandle
from lash_store._backends.sqlite import guard, opened
from lash_store._backends.sqlite.database import OpenDatabase
from lash_store._backends.sqlite.drift import read_catalogue, undeclared
from lash_store._backends.sqlite.driver import store_error
from lash_store._backends.sqlite.extras import declared_with
from lash_store._backends.sqlite.files import IN_MEMORY, NO_FILE, resolve
from lash_store._backends.sqlite.turns import Hold
from lash_store._kernel.calls import Call, LoopCall, ToldCall
from lash_store._kernel.checks import check_now
from lash_store._kernel.sharing import shared
from lash_store.errors import (
    LashStoreError,
    NestedTransactionError,
    ReadOnlyStoreError,
    StoreClosedError,
    StoreEmptyError,
    StoreLostError,
)

if TYPE_CHECKING:
    from lash_store._backends.sqlite.connection import StoreConnection
    from lash_store._kernel.options import Settings
    from lash_store._kernel.schema import Schema
    from lash_store._kernel.watching import Watch
    from lash_store.clock import Clock


R = TypeVar("R")


class SqliteHandle(BaseHandle[OpenDatabase]):
    """One store's access to a database that it may share with others; usable from any thread."""

    driver_error = sqlite3.Error
    explain = staticmethod(store_error)
    new_hold = Hold

    def __init__(self, database: OpenDatabase, schema: Schema, settings: Settings) -> None:
        super().__init__(database, schema, settings)
        self.key = database.key
        self._inside: int | None = None
        """The thread that is inside a block of this handle's own."""

    @classmethod
    def open(
        cls, schema: Schema, path: str | os.PathLike[str] | None, settings: Settings
    ) -> SqliteHandle:
        """Open what a path leads to, or a private database in memory."""
        resolved = resolve(path)
        if resolved == IN_MEMORY:
            return cls._on(OpenDatabase(schema, resolved), schema, settings)
        lost: list[OpenDatabase] = []
        while True:
            database = _database_at(schema, resolved)
            try:
                handle = cls._on(database, schema, settings)
            except StoreLostError:
                # Another file stands there now. The WAL beside it is still the old one's.
                database.let_go()
                _forget(database)
                lost.append(database)
            except StoreClosedError:
                _forget(database)  # the last store has just closed it
            else:
                for each in lost:  # the new file may have got the number of theirs
                    each.connections.identity = NO_FILE
                return handle

    def beside(self, schema: Schema, settings: Settings) -> SqliteHandle:
        """Open another handle on the same database."""
        if self.closed:
            raise self.closed_error()
        prefix = self.database.prefix
        there = declared_with(shared(schema, prefix) if prefix else schema, settings)
        return self._on(self.database, there, settings)

    @classmethod
    def _on(cls, database: OpenDatabase, schema: Schema, settings: Settings) -> SqliteHandle:
        handle = cls(database, schema, settings)
        with opened.lock:
            if database.closed or database.is_dropped:
                raise StoreClosedError(database.path)
            database.handles.add(handle)  # first: nobody may close it under us
        try:
            database.open(schema, settings)
        except BaseException:
            with suppress(LashStoreError):
                handle.close()
            raise
        return handle

    @property
    def reads_in_turn(self) -> bool:
        """Whether a snapshot has to wait for a turn, as a transaction does."""
        return self.database.in_memory

    @property
    def watch(self) -> Watch:
        """Who waits for commits."""
        return self.database.connections.watch

    def read_clock(self, clock: Clock) -> int:
        """Read the injected clock: SQLite has none of its own."""
        return check_now(clock.now_ms())

    def write(
        self,
        operation: str | None,
        work: Callable[[Any], Any],
        by_itself: bool = False,  # noqa: FBT001, FBT002 # reason: passed on by position, on the hottest path there is
    ) -> Any:
        """Do `work` in a write transaction, by itself or with what else waits; on this thread."""
        if self.closed or self._is_reader:
            self._check_writable()
        return self.database.writer.write(self, operation, work, by_itself)

    def read(self, operation: str, work: Callable[[Any], Any]) -> Any:
        """Do `work` in a snapshot, on this thread."""
        hold = Hold()
        connection = self.begin_read(hold, operation)
        try:
            return work(self.make_tx(connection, operation))
        finally:
            self.end_read(hold, connection)

    def submit_write(
        self,
        operation: str | None,
        work: Callable[[Any], Any],
        *,
        alone: bool = False,
        is_kept: bool = False,
    ) -> Awaitable[Any]:
        """Do `work` in a write transaction, for an event loop; alone, or with what else waits.

        What `is_kept` is done even if the caller is cancelled before.
        """
        self._check_writable()
        call = LoopCall(
            self,
            operation,
            work,
            budget_s=self.budget_s,
            alone=alone,
            is_consumers=operation is None,
            is_kept=is_kept,
        )
        self.database.writer.submit(call)
        return call.answer()

    def submit_told(
        self,
        calls: Sequence[tuple[str, Callable[[Any], Any], float, Callable[[Call], None]]],
    ) -> None:
        """Let calls of the library's own stand in line: operation, work, budget in seconds, whom to tell."""
        made = [
            ToldCall(self, operation, work, budget_s=budget_s, told=told)
            for operation, work, budget_s, told in calls
        ]
        self.database.writer.submit_all(made)

    def submit_read(
        self,
        operation: str | None,
        work: Callable[[Any], Any],
        *,
        write_instead: tuple[str, Callable[[Any], Any]] | None = None,
    ) -> Awaitable[Any]:
        """Do `work` in a snapshot, for an event loop: a consumer's alone, others with what waits.

        If it finds nothing, `write_instead`, an operation and its work, is done in a write
        transaction, and the event loop hears of that one only.
        """
        if write_instead is not None and self.database.in_memory:
            return self.submit_write(*write_instead)  # one line for both: it can look by itself
        self._check_open()
        if write_instead is not None and self._is_reader:
            work, write_instead = self._found_or_refused(work), None
        self.database.writer.turns.check_not_mine()
        is_consumers = operation is None
        call = LoopCall(
            self,
            operation,
            work,
            budget_s=self.budget_s,
            reads=self.database.in_memory,
            alone=is_consumers,
            is_consumers=is_consumers,
            write_instead=write_instead,
        )
        if self.database.in_memory:
            self.database.writer.submit(call)
        else:
            self.database.readers.submit(call)
        return call.answer()

    def _found_or_refused(self, look: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def found(tx: Any) -> Any:
            result = look(tx)
            if result is None:
                raise ReadOnlyStoreError(self.path)
            return result

        return found

    def write_together(
        self, calls: Sequence[tuple[SqliteHandle, str | None, Callable[[Any], Any]]]
    ) -> list[Any]:
        """Run calls of handles on this database as one group, in this order: for tests.

        Each result stands at its place, an error as itself.
        """
        self._check_all_here(handle for handle, _, _ in calls)
        made = self.database.writer.write_together(calls)
        return [call.result if call.error is None else call.error for call in made]

    def begin_write(self, hold: Hold) -> StoreConnection:
        """Begin a write transaction for a consumer's block, held by `hold`."""
        self._check_writable()
        connection = self.database.writer.begin(self, hold, budget_s=self.budget_s)
        self._inside = get_ident()
        return connection

    def end_write(self, hold: Hold, connection: StoreConnection, *, commit: bool) -> None:
        """Commit or roll back; whatever happens, the turn is the next one's."""
        self._inside = None
        self.database.writer.end(hold, connection, commit=commit)

    def begin_read(self, hold: Hold, operation: str | None = None) -> StoreConnection:
        """Begin a snapshot; in memory `hold` takes a turn for it."""
        self._check_open()
        operation = operation or "read"
        database = self.database
        database.writer.turns.check_not_mine()
        if not database.in_memory:
            return database.readers.begin(hold, operation, self.settings.busy_timeout_ms)
        return database.writer.begin_read(self, hold, operation, budget_s=self.budget_s)

    def end_read(self, hold: Hold, connection: StoreConnection) -> None:
        """End a snapshot."""
        if self.database.in_memory:
            self.database.writer.end_read(hold, connection)
        else:
            self.database.readers.end(connection)

    def check_there(self) -> None:
        """Raise StoreLostError if another file, or none, is where the one was that was opened."""
        self.database.connections.check_file()

    def check_not_writing(self) -> None:
        """Raise NestedTransactionError inside a write transaction of this thread."""
        self.database.writer.turns.check_not_mine()

    def _undeclared(self, connection: StoreConnection) -> tuple[str, ...]:
        return tuple(undeclared(self.schema, read_catalogue(connection.own_cursor)))

    def _compare(self, connection: StoreConnection) -> None:
        try:
            is_empty = guard.is_empty(connection.own_cursor, self.schema, self.path)
        except sqlite3.Error as error:
            raise store_error(error, connection) from error
        if is_empty:
            raise StoreEmptyError.of(self.path, self.schema.kind)

    def close(self) -> None:
        """Refuse what waits, and close the database with the last handle; idempotent.

        A transaction that runs in a block of this handle's is waited for.
        """
        if self.closed:
            return
        if self._inside == get_ident() and self.database.writer.turns.is_mine:
            raise NestedTransactionError(
                "this thread is inside a transaction of this store, which would have to end first"
            )
        database = self.database
        try:
            self._close(database)
        except BaseException:
            with opened.lock:
                if not database.closed:  # it is as if it had not begun, and may be closed again
                    self.closed = False
                    database.handles.add(self)
            raise

    def _close(self, database: OpenDatabase) -> None:
        with opened.lock:
            self.closed = True
            database.handles.discard(self)
            is_last = not any(True for _ in database.handles)
        database.writer.refuse(self)
        database.readers.refuse(self)
        if not is_last and self._inside is None and not database.writer.runs_for(self):
            self.watch.notify_of_end()  # who waits by this handle finds out
            return
        hold = Hold()
        database.writer.take(self, hold, budget_s=self.budget_s)
        try:
            with opened.lock:
                is_last = not any(True for _ in database.handles)
                database.connections.closed = is_last
            if is_last:
                _forget(database)
                database.close(hold)
        except BaseException:
            if database.closed:  # by an interrupted thread, and nobody else comes to finish it
                _forget(database)
                database.close(hold)
            raise
        finally:
            database.writer.give_back(hold)
            self.watch.notify_of_end()


def _forget(database: OpenDatabase) -> None:
    """Let the next one who opens the path look at it anew."""
    with opened.lock:
        key = opened.registered_as(database.path, database.prefix)
        found: object = opened.databases.get(key)
        if found is database:
            del opened.databases[key]


def _database_at(schema: Schema, path: str) -> OpenDatabase:
    with opened.lock:
        if not shares.get():
            database = OpenDatabase(schema, path)
            opened.apart.add(database)
            return database
        opened.prefixes.add(schema.prefix)
        key = opened.registered_as(path, schema.prefix)
        found = opened.databases.get(key)
        if isinstance(found, OpenDatabase) and not (found.closed or found.is_dropped):
            return found
        database = opened.databases[key] = OpenDatabase(schema, path)
        return database
