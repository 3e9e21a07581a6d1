"""What one store has of an open PostgreSQL database: its own budget, rights and end."""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from threading import get_ident
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from sqlalchemy import URL

from lash_store._backends.handles import BaseHandle
from lash_store._backends.postgresql import database as databases, guard
from lash_store._backends.postgresql.database import Key, OpenDatabase
from lash_store._backends.postgresql.drift import compare
from lash_store._backends.postgresql.driver import store_error
from lash_store._backends.postgresql.locks import locks_of, together
from lash_store._kernel.calls import Call, LibraryCall, LoopCall, ThreadCall, ToldCall
from lash_store._kernel.checks import check_now
from lash_store._kernel.locks import beside_of, key_of
from lash_store._kernel.options import Settings
from lash_store._kernel.schema import Schema
from lash_store._kernel.sharing import shared
from lash_store.clock import Clock, SystemClock
from lash_store.errors import (
    NestedTransactionError,
    StoreBusyError,
    StoreClosedError,
)

if TYPE_CHECKING:
    from lash_store._backends.postgresql.connection import StoreConnection
    from lash_store._kernel.watching import Watch

R = TypeVar("R")


class _Hold:
    """What holds a snapshot of the library's own."""

    __slots__ = ("__weakref__",)


class PostgresqlHandle(BaseHandle[OpenDatabase]):
    """One store's access to a database that it shares with others; usable from any thread."""

    reads_in_turn = False
    driver_error = psycopg.Error
    explain = staticmethod(store_error)
    new_hold = _Hold

    def __init__(self, database: OpenDatabase, schema: Schema, settings: Settings) -> None:
        super().__init__(database, schema, settings)
        self.key = database.whereabouts
        self.is_full = settings.synchronous == "FULL"
        self._blocks: dict[int, tuple[ThreadCall, int, Any]] = {}
        """The consumer's blocks that are open, by what holds them."""

    @classmethod
    def open(cls, schema: Schema, url: URL, settings: Settings) -> PostgresqlHandle:
        """Open what a URL leads to."""
        guard.check_settings(settings)
        key = Key.of(url, settings)
        while True:
            database = databases.database_of(url, key)
            try:
                return cls._on(database, schema, settings)
            except StoreClosedError:
                databases.forget(database)  # the last store has just closed it

    def beside(self, schema: Schema, settings: Settings) -> PostgresqlHandle:
        """Open another handle on the same database."""
        if self.closed:
            raise self.closed_error()
        return self._on(self.database, schema, settings)

    @classmethod
    def _on(cls, database: OpenDatabase, schema: Schema, settings: Settings) -> PostgresqlHandle:
        there = shared(schema, database.key.prefix)
        while True:
            with database.opening:
                if database.closed:
                    raise StoreClosedError(database.path)
                if there in database.held:
                    handle = cls(database, there, settings)
                    database.handles.add(handle)
                    return handle
            database.ensure(there, settings)

    @property
    def watch(self) -> Watch:
        """Who waits for commits."""
        return self.database.watch

    def read_clock(self, clock: Clock) -> int:
        """Return the server's time, as far as it is known here; of another clock than the system's its own."""
        if type(clock) is SystemClock:
            return self.database.server_ms()
        return check_now(clock.now_ms())

    # One-call operations.

    def write(
        self,
        operation: str | None,
        work: Callable[[Any], Any],
        by_itself: bool = False,  # noqa: FBT001, FBT002 # reason: the protocol's signature
    ) -> Any:
        """Do `work` in a write transaction, by itself or with what else waits."""
        self._check_writable()
        call = ThreadCall(self, operation, work, budget_s=self.budget_s, by_itself=by_itself)
        return self.database.groups.run(self._locking(call, work))

    def read(self, operation: str, work: Callable[[Any], Any]) -> Any:
        """Do `work` in a snapshot."""
        self._check_open()
        call = ThreadCall(self, operation, work, budget_s=self.budget_s)
        call.reads = True
        return self.database.groups.run(call)

    def submit_write(
        self,
        operation: str | None,
        work: Callable[[Any], Any],
        *,
        alone: bool = False,
        is_kept: bool = False,
    ) -> Awaitable[Any]:
        """Do `work` in a write transaction, for an event loop."""
        self._check_writable()
        self.database.groups.check_not_inside()
        call = LoopCall(
            self,
            operation,
            work,
            budget_s=self.budget_s,
            alone=alone,
            is_consumers=operation is None,
            is_kept=is_kept,
        )
        self.database.groups.submit([self._locking(call, work)])
        return call.answer()

    def submit_told(
        self,
        calls: Sequence[tuple[str, Callable[[Any], Any], float, Callable[[Call], None]]],
    ) -> None:
        """Let calls of the library's own stand in line: operation, work, budget in seconds, whom to tell."""
        made: list[LibraryCall] = []
        for operation, work, budget_s, told in calls:
            call = ToldCall(self, operation, work, budget_s=budget_s, told=told)
            made.append(self._locking(call, work))
        self.database.groups.submit(made)

    def submit_read(
        self,
        operation: str | None,
        work: Callable[[Any], Any],
        *,
        write_instead: tuple[str, Callable[[Any], Any]] | None = None,
    ) -> Awaitable[Any]:
        """Do `work` in a snapshot, for an event loop; if it finds nothing, the write instead."""
        self._check_open()
        self.database.groups.check_not_inside()
        if write_instead is None:
            return self._read_for_loop(operation, work).answer()
        return self._read_or_write(operation, work, *write_instead)

    def _read_for_loop(self, operation: str | None, work: Callable[[Any], Any]) -> LoopCall:
        is_consumers = operation is None
        call = LoopCall(
            self,
            operation,
            work,
            budget_s=self.budget_s,
            reads=True,
            alone=is_consumers,
            is_consumers=is_consumers,
        )
        self.database.groups.submit([call])
        return call

    async def _read_or_write(
        self,
        operation: str | None,
        look: Callable[[Any], Any],
        write: str,
        work: Callable[[Any], Any],
    ) -> Any:
        found = await self._read_for_loop(operation, look).answer()
        return await self.submit_write(write, work) if found is None else found

    def write_together(
        self, calls: Sequence[tuple[PostgresqlHandle, str | None, Callable[[Any], Any]]]
    ) -> list[Any]:
        """Run calls of handles on this database as one group, in this order: for tests."""
        self._check_all_here(handle for handle, _, _ in calls)
        made = [
            handle._locking(ThreadCall(handle, operation, work, budget_s=handle.budget_s), work)  # noqa: SLF001 # reason: of the same class
            for handle, operation, work in calls
        ]
        return self.database.groups.run_together(made)

    # A consumer's blocks.

    def begin_write(self, hold: Any) -> StoreConnection:
        """Begin a write transaction for a consumer's block, held by `hold`."""
        self._check_writable()
        call = self._locking(_block(self), None)
        return self._begin_block(hold, call, self.database.groups.begin_block)

    def end_write(self, hold: Any, connection: StoreConnection, *, commit: bool) -> None:
        """Commit or roll back; whatever happens, the locks are free."""
        self._end_block(hold, connection, commit=commit)

    def begin_read(self, hold: Any, operation: str | None = None) -> StoreConnection:
        """Begin a snapshot, a consumer's or for an operation; end it with :meth:`end_read`."""
        self._check_open()
        call = _block(self)
        call.reads, call.operation = True, operation
        return self._begin_block(hold, call, self.database.groups.begin_snapshot)

    def end_read(self, hold: Any, connection: StoreConnection) -> None:
        """End a snapshot."""
        self._end_block(hold, connection, commit=False)

    def _begin_block(
        self, hold: Any, call: ThreadCall, begin: Callable[[ThreadCall], StoreConnection]
    ) -> StoreConnection:
        """Begin a block that lives as long as what holds it: if an interrupt drops that, it is rolled back."""
        groups = self.database.groups
        groups.check_not_inside()
        dropped = weakref.finalize(hold, self._dropped, id(hold))
        self._blocks[id(hold)] = (call, get_ident(), dropped)
        groups.held(hold, call)
        try:
            groups.enter(call)
            return begin(call)
        except BaseException:
            groups.abandon(call)
            self._forget(hold)
            raise

    def _end_block(self, hold: Any, connection: StoreConnection, *, commit: bool) -> None:
        found = self._blocks.get(id(hold))
        if found is None:
            return  # of a parent process
        call = found[0]
        try:
            self.database.groups.end_block(call, connection, commit=commit)
        except BaseException:
            self.database.groups.abandon(call)  # what an interrupt has left of it
            raise
        finally:
            self._forget(hold)

    def _forget(self, hold: Any) -> None:
        found = self._blocks.pop(id(hold), None)
        if found is not None:
            found[2].detach()

    def _end_unwound(self) -> None:
        with suppress(NestedTransactionError):
            self.database.groups.check_not_inside()

    def _dropped(self, held_by: int) -> None:
        found = self._blocks.pop(held_by, None)
        if found is not None:
            self.database.groups.abandon(found[0])

    def check_not_writing(self) -> None:
        """Raise NestedTransactionError inside a write transaction of this thread."""
        self.database.groups.check_not_inside()

    def _undeclared(self, connection: StoreConnection) -> tuple[str, ...]:
        _, added = compare(connection.own_cursor, self.schema, self.database.schema_name)
        return tuple(added)

    def _compare(self, connection: StoreConnection) -> None:
        guard.require_there(
            connection.own_cursor, self.schema, self.path, self.database.schema_name
        )

    def close(self) -> None:
        """Refuse what waits, and close the database with the last handle; idempotent.

        A transaction that runs in a block of this handle's is waited for.
        """
        if self.closed:
            return
        mine = [call for call, thread, _ in self._blocks.values() if thread == get_ident()]
        if mine:
            self._end_unwound()
        if any(self.database.groups.is_open(call) for call in mine if not call.reads):
            raise NestedTransactionError(
                "this thread is inside a transaction of this store, which would have to end first"
            )
        self.closed = True
        self.database.groups.refuse(self)
        try:
            self.database.groups.wait_for(self)
        except StoreBusyError:
            self.closed = False
            raise
        with self.database.opening:
            self.database.handles.discard(self)
            is_last = not any(True for _ in self.database.handles)
            if is_last:
                databases.forget(self.database)
                self.database.close()
        self.watch.notify_of_end()

    def _locking(self, call: Any, work: Any) -> Any:
        place, scope = self.database.place, self.make_tx.args[0].scope  # type: ignore[attr-defined] # reason: a partial, of the store's context
        call.locks = locks_of(place, self.schema, scope, key_of(work))
        beside = beside_of(work)
        if beside is not None:
            call.locks = together((*call.locks, *locks_of(place, *beside)))
        return call


def _block(handle: PostgresqlHandle) -> ThreadCall:
    return ThreadCall(handle, None, _no_work, budget_s=handle.budget_s, by_itself=True)


def _no_work(_: Any) -> None:
    """Stand in line for a block, which does its work by itself."""
