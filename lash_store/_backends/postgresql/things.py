"""Locks on single things that a transaction takes late, when it knows which (K-LOCK-1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import monotonic
from typing import TYPE_CHECKING

import psycopg

from lash_store._backends.postgresql import dialect
from lash_store._backends.postgresql.driver import store_error
from lash_store._backends.postgresql.locks import Lock, lock_if_need_be_waiting, locks_of
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

    __slots__ = ("_before", "_connection", "_since_s")

    def __init__(self, connection: StoreConnection) -> None:
        self._connection, self._since_s = connection, monotonic()
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
        """Ask for the lock, with the next statement, in case that it is free.

        If it is not, let go of the rows, which its holder may want, and wait for it: as long as is left
        of the budget, however often that is.
        """
        connection = self._connection
        *_, lock = locks_of(connection.place, schema, scope, key)
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
            self._wait_for(lock)
            return False

        return is_had

    def _wait_for(self, lock: Lock) -> None:
        connection = self._connection
        waited_ms = round((monotonic() - self._since_s) * 1000)
        if waited_ms >= connection.budget_ms:
            raise StoreBusyError(connection.path, waited_ms)
        limit = dialect.lock_timeout(connection.budget_ms - waited_ms)
        connection.own_cursor.later(limit, None)
        lock_late(connection, (lock,))
