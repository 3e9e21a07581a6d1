"""The cursor that a consumer gets on a transaction of the store's."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self, cast

from lash_store._kernel.observing import observers, telling
from lash_store.errors import TransactionEndedError

if TYPE_CHECKING:
    from lash_store._backends.sqlite.connection import StoreConnection


class GuardedCursor(sqlite3.Cursor):
    """A consumer's cursor: it runs inside the transaction that it was opened in, or not at all.

    SQLite rolls a transaction back on some errors; what an open cursor ran after that would
    commit by itself.
    """

    def execute(self, *arguments: Any) -> Self:
        """Execute inside the current transaction."""
        connection = cast("StoreConnection", self.connection)
        connection.check_usable()
        connection.admit(arguments[0])
        if not observers:
            return super().execute(*arguments)
        with telling(connection.operation, arguments[0], connection.path):
            return super().execute(*arguments)

    def executemany(self, *arguments: Any) -> Self:
        """Execute for each parameter set inside the current transaction."""
        connection = cast("StoreConnection", self.connection)
        connection.check_usable()
        connection.admit(arguments[0])
        if not observers:
            return super().executemany(*arguments)
        with telling(connection.operation, arguments[0], connection.path):
            return super().executemany(*arguments)

    def fetchone(self) -> Any:
        """Fetch on the thread of the transaction."""
        cast("StoreConnection", self.connection).check_thread()
        with _closed_at_the_end():
            return super().fetchone()

    def fetchmany(self, *arguments: Any, **options: Any) -> list[Any]:
        """Fetch on the thread of the transaction."""
        cast("StoreConnection", self.connection).check_thread()
        with _closed_at_the_end():
            return super().fetchmany(*arguments, **options)

    def fetchall(self) -> list[Any]:
        """Fetch on the thread of the transaction."""
        cast("StoreConnection", self.connection).check_thread()
        with _closed_at_the_end():
            return super().fetchall()

    def __next__(self) -> Any:
        cast("StoreConnection", self.connection).check_thread()
        return super().__next__()


@contextmanager
def _closed_at_the_end() -> Iterator[None]:
    try:
        yield
    except sqlite3.ProgrammingError as error:
        if "closed cursor" not in str(error):
            raise
        raise TransactionEndedError(
            "a result was used after its transaction had ended: fetch its rows inside the block"
        ) from error
