"""The connection, and the cursor, that a consumer gets on a transaction of the store's."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import GEN_SUSPENDED, getgeneratorstate, isgenerator
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self, cast
from weakref import WeakSet

import psycopg
from psycopg.pq import TransactionStatus

from lash_store._backends.postgresql.driver import pipelining
from lash_store._backends.tx_connection import OwnedConnection
from lash_store._kernel.observing import telling
from lash_store.errors import TransactionEndedError

if TYPE_CHECKING:
    from lash_store._backends.postgresql.connection import StoreConnection


_OPEN: Final = (TransactionStatus.INTRANS, TransactionStatus.INERROR, TransactionStatus.ACTIVE)


if TYPE_CHECKING:
    _Cursor = psycopg.Cursor[Any]
else:
    _Cursor = object


class _Guarded(_Cursor):
    """What a consumer's cursors have in common: they run inside the transaction that they were opened in, or not at all."""

    def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        """Execute inside the current transaction."""
        connection = self._entered(query)
        with telling(connection.operation, str(query), connection.path):
            super().execute(query, params, **options)
        return self

    def stream(self, query: Any, params: Any = None, **options: Any) -> Iterator[Any]:
        """Execute inside the current transaction, row by row."""
        connection = self._entered(query)
        with telling(connection.operation, str(query), connection.path):
            rows = super().stream(query, params, **options)
        # It keeps the connection to itself until it is closed: the transaction could not end before.
        connection.cursors.add(rows)
        return rows

    @contextmanager
    def copy(self, statement: Any, params: Any = None, **options: Any) -> Iterator[Any]:
        """Copy inside the current transaction."""
        connection = self._entered(statement)
        with (
            telling(connection.operation, str(statement), connection.path),
            super().copy(statement, params, **options) as copy,
        ):
            yield copy

    def _entered(self, query: Any) -> StoreConnection:
        """Return the connection, if a statement of the consumer's own may be sent on it now."""
        connection = cast("StoreConnection", self.connection)
        connection.check_usable()
        connection.admit(query)
        connection.send_unsent()
        connection.has_written = True
        return connection

    def fetchone(self) -> Any:
        """Fetch inside the transaction, on its thread."""
        self._check_open()
        return super().fetchone()

    def fetchmany(self, size: int = 0) -> list[Any]:
        """Fetch inside the transaction, on its thread."""
        self._check_open()
        return super().fetchmany(size)

    def fetchall(self) -> list[Any]:
        """Fetch inside the transaction, on its thread."""
        self._check_open()
        return super().fetchall()

    def _check_open(self) -> None:
        cast("StoreConnection", self.connection).check_thread()
        if self.closed:
            raise TransactionEndedError(
                "a result was used after its transaction had ended: fetch its rows inside the block"
            )


class GuardedCursor(_Guarded, psycopg.Cursor[Any]):
    """A consumer's cursor."""

    def executemany(self, query: Any, params_seq: Any, **options: Any) -> None:
        """Execute for each parameter set inside the current transaction."""
        connection = self._entered(query)
        with telling(connection.operation, str(query), connection.path), pipelining(connection):
            super().executemany(query, params_seq, **options)


class GuardedServerCursor(_Guarded, psycopg.ServerCursor[Any]):
    """One that the server keeps, under a name: of a result that is streamed."""


def close_cursors(cursors: WeakSet[Any], *, commit: bool) -> None:
    """Close cursors, and what streams from one, as their transaction ends.

    For a stream that is closed in its midst the driver cancels the statement, which undoes the transaction
    unless the server is done with it: what is to be committed reads it to its end.
    """
    for cursor in list(cursors):
        if commit and isgenerator(cursor) and getgeneratorstate(cursor) == GEN_SUSPENDED:
            deque(cursor, maxlen=0)
        cursor.close()
    cursors.clear()


class GuardedConnection(OwnedConnection, psycopg.Connection[Any]):
    """A connection whose settings can't be changed in a transaction: the driver would end that."""

    @property
    def in_transaction(self) -> bool:
        """Whether its transaction is still open; one that has failed is, until it is rolled back."""
        return not self.closed and self.info.transaction_status in _OPEN

    # What the driver's own setters come to; before the connection has its first transaction it sets some.

    def set_autocommit(self, value: Any) -> None:
        """Refuse: it would end the transaction."""
        self._refuse_setting("autocommit")
        super().set_autocommit(value)

    def set_isolation_level(self, value: Any) -> None:
        """Refuse: it is the store's."""
        self._refuse_setting("isolation_level")
        super().set_isolation_level(value)

    def set_read_only(self, value: Any) -> None:
        """Refuse: it is the store's."""
        self._refuse_setting("read_only")
        super().set_read_only(value)

    def set_deferrable(self, value: Any) -> None:
        """Refuse: it is the store's."""
        self._refuse_setting("deferrable")
        super().set_deferrable(value)

    def transaction(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse: the driver would go back to its savepoint, and locks with it, unheard."""
        self.check_usable()
        self.refuse("transaction() of the driver's, in place of SQLAlchemy's begin_nested(),")

    def _refuse_setting(self, name: str) -> None:
        if self.in_transaction:
            self.refuse(f"setting {name}")
