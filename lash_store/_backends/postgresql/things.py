"""Locks on single things that a transaction takes late, when it knows which (K-LOCK-1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import psycopg

from lash_store._backends.postgresql import dialect
from lash_store._backends.postgresql.driver import store_error
from lash_store._backends.postgresql.locks import (
    PATIENCE_MS,
    Lock,
    StillBlockedError,
    lock_if_need_be_waiting,
    locks_of,
)
from lash_store._kernel.schema import Schema
from lash_store.errors import StoreBusyError

if TYPE_CHECKING:
    from lash_store._backends.postgresql.connection import StoreConnection


def lock_late(connection: StoreConnection, locks: Iterable[Lock]) -> None:
    """Take locks in a transaction that has begun, those that it lacks."""
    for lock in locks:
        if not connection.held.isdisjoint({lock, (lock[0], False)}):
            continue
        cursor = connection.own_cursor
        try:
            if lock_if_need_be_waiting(cursor, lock):
                connection.read_time()
        except psycopg.Error as error:
            raise store_error(error, connection) from error
        connection.held.add(lock)


class ThingLocks:
    """See ``KeyLocks``."""

    __slots__ = ("_before", "_connection")

    def __init__(self, connection: StoreConnection) -> None:
        self._connection = connection
        self._before = set(connection.held)

    def set_point(self) -> None:
        """Set a savepoint, with the next statement."""
        self._before = set(self._connection.held)
        self._connection.own_cursor.later(dialect.SET_POINT, None)

    def let_go(self) -> None:
        """Go back to the savepoint: the server frees what was locked behind it."""
        connection = self._connection
        try:
            connection.own_cursor.execute(dialect.BACK_TO_POINT)
        except psycopg.Error as error:
            raise store_error(error, connection) from error
        connection.held.intersection_update(self._before)

    def lock_if_free(self, schema: Schema, scope: str, key: tuple[str, ...]) -> Callable[[], bool]:
        """Ask for the lock, with the next statement, in case that it is free."""
        connection = self._connection
        lock = self._lock_of(schema, scope, key)
        if lock in connection.held:
            return lambda: True
        answer = connection.own_cursor.ask(dialect.try_lock_statement(lock), None)

        def is_had() -> bool:
            try:
                ((is_free,),) = answer()
            except psycopg.Error as error:
                raise store_error(error, connection) from error
            if is_free:
                connection.held.add(lock)
                return True
            self.let_go()
            return False

        return is_had

    def wait_for(self, schema: Schema, scope: str, key: tuple[str, ...]) -> None:
        """Wait for the lock with the connection for a while, and then without one (K-LOCK-3)."""
        connection = self._connection
        self.let_go()
        budget_ms, cursor = connection.budget_ms, connection.own_cursor
        cursor.later(dialect.lock_timeout(min(budget_ms, PATIENCE_MS)), None)
        try:
            lock_late(connection, (self._lock_of(schema, scope, key),))
        except StoreBusyError as error:
            if type(error) is StoreBusyError:
                raise StillBlockedError(*error.args) from error.__cause__
            raise
        cursor.later(dialect.lock_timeout(budget_ms), None)

    def _lock_of(self, schema: Schema, scope: str, key: tuple[str, ...]) -> Lock:
        *_, lock = locks_of(self._connection.place, schema, scope, key)
        return lock
