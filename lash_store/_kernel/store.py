"""What the facades of every store share: opening, transactions, one-call operations, asyncio.

An operation is written once, as a method of the store's Tx class. The functions below turn it
into a one-call method of the store, which is a transaction of its own, and keep its signature::

    claim_lease = in_transaction(SessionTx.claim_lease)
    current_lease = in_snapshot(SessionTx.current_lease)
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from functools import wraps
from math import inf
from time import monotonic
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

from lash_store._kernel import dialects
from lash_store._kernel.checks import check_count
from lash_store._kernel.connection import StoreConnection
from lash_store._kernel.engine import Database
from lash_store._kernel.tx import Tx
from lash_store._kernel.watching import Watch
from lash_store._kernel.worker import Worker
from lash_store.errors import StoreClosedError

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T", bound=Tx)
T_co = TypeVar("T_co", bound=Tx, covariant=True)


class Transaction(Generic[T_co]):
    """What ``begin()`` returns: commits at the end, rolls back on any exception.

    A store has one of these and returns it again and again: its state is set only while the
    write lock is held, so no two transactions can share it.
    """

    # A slotted class: contextlib.contextmanager would cost a fifth of a short transaction.
    __slots__ = ("_database", "_make", "_raw", "_tx")

    def __init__(self, database: Database, make: Callable[[StoreConnection], T_co]) -> None:
        self._database = database
        self._make = make

    def __enter__(self) -> T_co:
        database = self._database
        raw = self._raw = database.begin_write()
        try:
            tx = self._tx = database.writing = self._make(raw)
        except BaseException:
            database.end_write(raw, dialects.ROLLBACK)
            raise
        return tx

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        tx, database = self._tx, self._database
        if tx.raw is None:  # a forked child: transaction and lock are the parent's
            if kind is None:
                _ = tx.cursor  # raises
            return
        how = dialects.ROLLBACK
        try:
            tx.leave()
            how = dialects.COMMIT if kind is None else dialects.ROLLBACK
        finally:
            database.end_write(self._raw, how)


class Snapshot(Generic[T_co]):
    """What ``read()`` returns: one consistent state of the database; nothing can be written."""

    __slots__ = ("_database", "_make", "_raw", "_tx")

    def __init__(self, database: Database, make: Callable[[StoreConnection], T_co]) -> None:
        self._database = database
        self._make = make

    def __enter__(self) -> T_co:
        raw = self._database.begin_read()
        try:
            tx = self._make(raw)
        except BaseException:
            self._database.end_read(raw)
            raise
        self._raw = raw
        self._tx = tx
        self._database.reading.add(tx)
        return tx

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        tx = self._tx
        if tx.raw is None:  # a forked child: the snapshot is the parent's
            if kind is None:
                _ = tx.cursor  # raises
            return
        self._database.reading.discard(tx)
        try:
            tx.leave()
        finally:
            self._database.end_read(self._raw)


class Store(Generic[T_co]):
    """An open store, usable from any thread; a context manager that closes it.

    A subclass adds ``open()``, which says what its Tx is made of, and the operations.
    """

    def __init__(self, database: Database, make: Callable[[StoreConnection], T_co]) -> None:
        self._database = database
        self._make = make
        self.transaction = Transaction(database, make)
        """What ``begin()`` returns."""

    @property
    def path(self) -> str:
        """The real path of the database file, or ``:memory:``."""
        return self._database.path

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
        return self.transaction

    def read(self) -> Snapshot[T_co]:
        """Open a snapshot: ``with store.read() as tx:``; a write inside is ReadOnlyStoreError."""
        return Snapshot(self._database, self._make)

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


class AsyncStore(Generic[T_co]):
    """An asyncio store: the same operations as coroutines, on two threads of its own.

    One thread writes and one reads, so that a long read never delays a lease renewal. Opened
    by ``async with`` or ``await``, or else by its first operation.
    """

    def __init__(self, open_store: Callable[[], Store[T_co]]) -> None:
        self._open_store = open_store
        self._store: Store[T_co] | None = None
        self._closing = threading.Lock()
        self._writer = Worker("lash-store-write", self._refusal)
        self._reader = Worker("lash-store-read", self._refusal)

    async def transact(self, work: Callable[[T_co], R]) -> R:
        """Run `work` as one write transaction on the writing thread and return its result.

        `work` gets the Tx and must not keep it. Cancelled before it starts, it does not run;
        cancelled later, the transaction is finished first, and then CancelledError is raised.
        """
        return await self._writer.run(lambda: self._transact(work))

    async def read(self, work: Callable[[T_co], R]) -> R:
        """Run `work` on one snapshot on the reading thread and return its result."""
        await self._opened()
        return await self._reader.run(lambda: self._read(work))

    async def wait_until(
        self, look: Callable[[T_co], R | None], *, timeout_ms: int | None = None
    ) -> R | None:
        """Wait until `look`, in a snapshot, finds something; see :meth:`Store.wait_until`.

        It looks on the reading thread. Cancelling it ends the wait.
        """
        await self._opened()
        deadline_s = deadline(timeout_ms)
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def notify() -> None:
            with suppress(RuntimeError):  # the loop has been closed in the meantime
                loop.call_soon_threadsafe(changed.set)

        watch = self._sync().watch
        try:
            await self._reader.run(lambda: watch.subscribe(notify))
            while True:
                changed.clear()
                left_s = deadline_s - monotonic()
                found = await self.read(look)
                if found is not None or left_s <= 0:
                    return found
                with suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), None if left_s == inf else left_s)
        finally:
            watch.unsubscribe(notify)

    async def check_schema(self) -> None:
        """Raise SchemaDriftError or SchemaVersionError unless the file is as declared."""
        await self._opened()
        await self._reader.run(lambda: self._sync().check_schema())

    async def aclose(self) -> None:
        """Finish what has started, refuse the rest, and close the store; idempotent."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        # On a thread of its own, which no cancelling stops half-way; twice at once is harmless.
        with self._closing:
            self._reader.close()
            self._writer.close()
            if self._store is not None:
                self._store.close()

    async def __aenter__(self) -> Self:
        try:
            await self._opened()
        except BaseException:
            await asyncio.shield(self.aclose())  # it may have opened all the same
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __await__(self) -> Generator[Any, None, Self]:
        return self.__aenter__().__await__()

    def _transact(self, work: Callable[[T_co], R]) -> R:
        with self._sync().begin() as tx:
            return work(tx)

    def _read(self, work: Callable[[T_co], R]) -> R:
        with self._sync().read() as tx:
            return work(tx)

    async def _opened(self) -> None:
        if self._store is None:
            await self._writer.run(self._sync)

    def _sync(self) -> Store[T_co]:
        # Only the writing thread opens: _opened() has run before the reading one comes here.
        if self._store is None:
            self._store = self._open_store()
        return self._store

    def _refusal(self) -> Exception:
        return StoreClosedError("asyncio store" if self._store is None else self._store.path)


def deadline(timeout_ms: int | None) -> float:
    """Return when a wait that begins now has to end, on the monotonic clock in seconds."""
    if timeout_ms is None:
        return inf
    return monotonic() + check_count("timeout_ms", timeout_ms) / 1000


def in_transaction(
    operation: Callable[Concatenate[T, P], R],
) -> Callable[Concatenate[Store[T], P], R]:
    """Make an operation of a Tx a method of its store: one write transaction per call."""

    @wraps(operation)
    def call(store: Store[T], /, *args: P.args, **kwargs: P.kwargs) -> R:
        with store.transaction as tx:
            tx.is_single = True
            return operation(tx, *args, **kwargs)

    return call


def in_snapshot(
    operation: Callable[Concatenate[T, P], R],
) -> Callable[Concatenate[Store[T], P], R]:
    """Make a reading operation of a Tx a method of its store: one snapshot per call."""

    @wraps(operation)
    def call(store: Store[T], /, *args: P.args, **kwargs: P.kwargs) -> R:
        with store.read() as tx:
            return operation(tx, *args, **kwargs)

    return call


def in_async_transaction(
    operation: Callable[Concatenate[T, P], R],
) -> Callable[Concatenate[AsyncStore[T], P], Coroutine[Any, Any, R]]:
    """Make an operation of a Tx a coroutine method: one write transaction per call."""

    @wraps(operation)
    async def call(store: AsyncStore[T], /, *args: P.args, **kwargs: P.kwargs) -> R:
        def alone(tx: T) -> R:
            tx.is_single = True
            return operation(tx, *args, **kwargs)

        return await store.transact(alone)

    return call


def in_async_snapshot(
    operation: Callable[Concatenate[T, P], R],
) -> Callable[Concatenate[AsyncStore[T], P], Coroutine[Any, Any, R]]:
    """Make a reading operation of a Tx a coroutine method: one snapshot per call."""

    @wraps(operation)
    async def call(store: AsyncStore[T], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await store.read(lambda tx: operation(tx, *args, **kwargs))

    return call
