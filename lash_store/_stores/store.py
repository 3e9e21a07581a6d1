"""A store as a consumer has it open: transactions, snapshots, waiting, closing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from math import inf
from time import monotonic
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from lash_store._kernel.backend import Database
from lash_store._kernel.checks import check_count
from lash_store._kernel.watching import Watch
from lash_store._stores.tx import Context, Tx

R = TypeVar("R")
T_co = TypeVar("T_co", bound=Tx[Any], covariant=True)


class Store(Generic[T_co]):
    """An open store, usable from any thread; a context manager that closes it.

    A subclass adds ``open()``, which says what its Tx is made of, and the operations.
    """

    def __init__(self, database: Database, kind: type[T_co], context: Context) -> None:
        self._database = database
        self._make: Callable[..., T_co] = partial(kind, context)
        self._context = context
        self._keys = context.keys
        self._clock = context.clock

    @property
    def path(self) -> str:
        """The real path of the database file, or ``:memory:``."""
        return self._database.path

    @property
    def _key(self) -> str:
        """What tells the database from the others that this process has open."""
        return self._database.key

    @property
    def watch(self) -> Watch:
        """Who waits for commits; see :meth:`wait_until`."""
        return self._database.watch

    @property
    def closed(self) -> bool:
        """Whether ``close()`` was called."""
        return self._database.closed

    def begin(self) -> Transaction[T_co]:
        """Open a write transaction: ``with store.begin() as tx:`` (K-TX-1, K-TX-2).

        It holds the write lock from the start, commits when the block ends and rolls
        everything back when an exception leaves it. Raises StoreBusyError if the lock was not
        free within the busy budget, and NestedTransactionError inside another transaction of
        this store on the same thread.
        """
        return Transaction(self, writes=True)

    def read(self) -> Transaction[T_co]:
        """Open a snapshot: ``with store.read() as tx:``; a write inside is ReadOnlyStoreError."""
        return Transaction(self, writes=False)

    def wait_until(
        self, look: Callable[[T_co], R | None], *, timeout_ms: int | None = None
    ) -> R | None:
        """Wait until `look`, in a snapshot, finds something, and return it; None after `timeout_ms`.

        It looks at once, and again after every commit: of this process at once, of another
        within 50 ms. Waiting takes no lock and next to no CPU time. Raises NestedTransactionError
        inside a write transaction of this store, whose commit it would wait for in vain.
        """
        database = self._database
        database.check_not_writing()
        deadline_s = deadline(timeout_ms)
        changed = threading.Event()
        with database.watch.subscribed(changed.set):
            while True:
                changed.clear()
                left_s = deadline_s - monotonic()
                with self.read() as tx:
                    found = look(tx)
                if found is not None or left_s <= 0:
                    return found
                changed.wait(min(left_s, threading.TIMEOUT_MAX))

    def check_schema(self) -> None:
        """Raise SchemaDriftError or SchemaVersionError unless the file is as declared (K-GUARD-4)."""
        self._database.check_schema()

    def close(self) -> None:
        """Close the store, after the write that is running; closing twice is harmless (K-OPEN-5)."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<{type(self).__name__} {self.path!r} {state}>"

    # What transactions and one-call operations consist of.

    def _begin_write(self, operation: str | None = None) -> T_co:
        """Begin a write transaction, for one operation or a consumer's block."""
        database = self._database
        transaction = database.begin_write(operation or "begin", self._keys)
        try:
            return self._make(transaction, operation)
        except BaseException:
            database.end_write(transaction, commit=False)
            raise

    def _end_write(self, tx: Tx[Any], *, commit: bool) -> None:
        """Commit or roll back, and end `tx`."""
        transaction = tx.transaction
        if transaction is None:
            _leave_to_parent(tx, commit=commit)
        else:
            tx.transaction = None
            self._database.end_write(transaction, commit=commit)

    def _begin_read(self, operation: str | None = None) -> T_co:
        """Begin a snapshot, for one operation or a consumer's block."""
        database = self._database
        transaction = database.begin_read(operation or "read")
        try:
            return self._make(transaction, operation)
        except BaseException:
            database.end_read(transaction)
            raise

    def _end_read(self, tx: Tx[Any], *, commit: bool) -> None:
        """End a snapshot and `tx`; whether it went well makes no difference to what is stored."""
        transaction = tx.transaction
        if transaction is None:
            _leave_to_parent(tx, commit=commit)
        else:
            tx.transaction = None
            self._database.end_read(transaction)


class Transaction(Generic[T_co]):
    """What ``begin()`` and ``read()`` return: ends when its block does.

    A write transaction commits then, or rolls back on any exception; a snapshot is one
    consistent state of the database, and nothing can be written in it.
    """

    # A slotted class: contextlib.contextmanager would cost a fifth of a short transaction.
    __slots__ = ("_store", "_tx", "_writes")

    def __init__(self, store: Store[T_co], *, writes: bool) -> None:
        self._store = store
        self._writes = writes

    def __enter__(self) -> T_co:
        store = self._store
        tx = self._tx = store._begin_write() if self._writes else store._begin_read()
        return tx

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        end = self._store._end_write if self._writes else self._store._end_read
        end(self._tx, commit=kind is None)


def _leave_to_parent(tx: Tx[Any], *, commit: bool) -> None:
    """Leave a block in a forked child: transaction and locks are the parent's.

    Only a block that went well has to be told.
    """
    if commit:
        _ = tx.cursor  # raises


def deadline(timeout_ms: int | None) -> float:
    """Return when a wait that begins now has to end, on the monotonic clock in seconds."""
    if timeout_ms is None:
        return inf
    return monotonic() + check_count("timeout_ms", timeout_ms) / 1000
