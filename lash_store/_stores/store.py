"""A store as a consumer has it open: transactions, snapshots, waiting, closing."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Collection, Sequence
from functools import partial
from math import inf
from threading import get_ident
from time import monotonic
from types import FunctionType, TracebackType
from typing import Any, Final, Generic, Protocol, Self, TypeVar

from lash_store._backends import open_handle
from lash_store._kernel.backend import Handle, OpenTransaction
from lash_store._kernel.checks import check_count, check_kind, shown
from lash_store._kernel.options import OpenOptions, Settings
from lash_store._kernel.schema import Schema
from lash_store._kernel.threads import Bell
from lash_store._kernel.watching import Concern, Waiter, Watch
from lash_store._stores.tx import Context, Tx
from lash_store._stores.uncopied import Uncopied
from lash_store.errors import (
    CoroutineError,
    InvalidRecordError,
    NestedTransactionError,
    StoreClosedError,
    ThreadError,
)

_NOT_AWAITABLE: Final = frozenset({type(None), bool, int, float, str, bytes, tuple, list, dict})
"""What most functions give: one look at the type."""

_RUNS_LATER: Final = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR

R = TypeVar("R")
T_co = TypeVar("T_co", bound=Tx[Any], covariant=True)
T_contra = TypeVar("T_contra", bound=Tx[Any], contravariant=True)
R_co = TypeVar("R_co", covariant=True)


class Search(Protocol[T_contra, R_co]):
    """What the library itself waits for: something of one name."""

    @property
    def key(self) -> str:
        """The name; a commit that concerns it says so, by ``Tx.touch``."""

    def may_have(self, tx: T_contra) -> bool:
        """Whether there may be something, by a look that changes nothing and may come at any time."""

    def __call__(self, tx: T_contra) -> R_co | None:
        """Look for it."""


class Store(Uncopied, Generic[T_co]):
    """An open store, usable from any thread; a context manager that closes it.

    It is a handle: all stores of a file share one open database. A subclass adds ``open()``,
    which says what its Tx is made of, and the operations.
    """

    def __init__(self, handle: Handle, kind: type[T_co], context: Context) -> None:
        self._handle = handle
        self._tx = kind
        self._context = context
        handle.make_tx = partial(kind, context)

    @property
    def path(self) -> str:
        """The real path of the database file, or ``:memory:``."""
        return self._handle.path

    @property
    def _key(self) -> str:
        """What tells the database from the others that this process has open."""
        return self._handle.key

    @property
    def watch(self) -> Watch:
        """Who waits for commits; see :meth:`wait_until`."""
        return self._handle.watch

    @property
    def closed(self) -> bool:
        """Whether ``close()`` was called."""
        return self._handle.closed

    def read_clock(self) -> int:
        """Return the time by the store's own clock, in milliseconds since the epoch.

        What ``tx.now_ms`` is in a transaction, read once; for what is compared outside of one.
        """
        return self._handle.read_clock(self._context.clock)

    def begin(self) -> Transaction[T_co]:
        """Open a write transaction: ``with store.begin() as tx:`` (K-TX-1, K-TX-2).

        It holds the write lock from the start, commits when the block ends and rolls
        everything back when an exception leaves it. Raises StoreBusyError if the lock was not
        free within the busy budget, and NestedTransactionError inside another transaction on
        the same database and thread.
        """
        return Transaction(self, writes=True)

    def transact(self, work: Callable[[T_co], R], *, repeatable: bool = False) -> R:
        """Run `work` as one write transaction on this thread and return its result (K-GROUP-2).

        It is alone in its transaction, as in a ``begin()`` block. One that is `repeatable` may
        share it with one-call operations that wait: it is then undone by itself if it fails, and
        it may run twice, so that whatever it does besides must bear that. Raises CoroutineError,
        with everything rolled back, if `work` is asynchronous.
        """
        plain = plain_function("work", work)
        check_kind("repeatable", repeatable, bool)
        if repeatable:
            result: R = self._handle.write(None, plain, by_itself=True)
            return result
        with self.begin() as tx:
            return plain(tx)

    def read(self) -> Transaction[T_co]:
        """Open a snapshot: ``with store.read() as tx:``; a write inside is ReadOnlyStoreError."""
        return Transaction(self, writes=False)

    def wait_until(
        self, look: Callable[[T_co], R | None], *, timeout_ms: int | None = None
    ) -> R | None:
        """Wait until `look`, in a snapshot, finds something, and return it; None after `timeout_ms`.

        What is false (None, False, an empty list, 0) is nothing: it waits on.
        It looks at once, and again after every commit that may concern what it has looked at: of
        this process at once, of another within 50 ms. What comes true by time alone (a lease that runs out, work that
        is due) wakes nobody: give a `timeout_ms`, and look again. Waiting takes no lock and next to no CPU time. Raises NestedTransactionError
        inside a write transaction of this store, whose commit it would wait for in vain.
        """
        finding = finding_function(look)
        changed = Bell()
        return self._wait(finding, Waiter(changed.ring), changed, timeout_ms)

    def _wait_for(self, search: Search[T_co, R], timeout_ms: int | None) -> R | None:
        """Wait until what the library itself looks for is there."""
        changed = Bell()
        waiter = Waiter(changed.ring, self._probe(search))
        return self._wait(search, waiter, changed, timeout_ms, self._concerns(search))

    def _wait(
        self,
        look: Callable[[T_co], R | None],
        waiter: Waiter,
        changed: Bell,
        timeout_ms: int | None,
        concerns: Sequence[Concern] = (),
    ) -> R | None:
        handle, watch = self._handle, self.watch
        handle.check_not_writing()
        deadline_s = deadline(timeout_ms)
        try:
            watch.subscribe(waiter, concerns, handle.ask)
            while True:
                changed.wait(0)  # whatever rang before: what is looked at now is newer
                left_s = deadline_s - monotonic()
                with self.read() as tx:
                    found = look(tx)
                    touched = () if concerns else touched_by(tx)
                if found is not None or left_s <= 0:
                    return found
                # What was committed since then did not concern it, if it has looked at something new.
                if not watch.widen(waiter, touched):
                    changed.wait(left_s)
        finally:
            watch.unsubscribe(waiter)

    def _probe(self, search: Search[Any, Any]) -> Callable[[Any], bool]:
        make_tx = self._handle.make_tx
        return lambda transaction: search.may_have(make_tx(transaction, "wait"))

    def _concerns(self, search: Search[Any, Any]) -> list[Concern]:
        return [(self._tx.schema.kind, "", search.key)]

    def check_schema(self) -> None:
        """Raise SchemaDriftError or SchemaVersionError unless the file is as declared (K-GUARD-4)."""
        self._handle.check_schema()

    def undeclared_extras(self) -> tuple[str, ...]:
        """Return the indexes and triggers on our tables that were not declared as `extras`, as text.

        There are none unless it was opened with ``extras="any"``, or they were added since.
        """
        return self._handle.undeclared_extras()

    def close(self) -> None:
        """Close the store, after the write that is running; closing twice is harmless (K-OPEN-5)."""
        self._handle.close()

    def __enter__(self) -> Self:
        if self.closed:
            raise StoreClosedError(self.path)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<{type(self).__name__} {self.path!r} {state}>"


class Transaction(Generic[T_co]):
    """What ``begin()`` and ``read()`` return: ends when its block does.

    A write transaction commits then, or rolls back on any exception; a snapshot is one
    consistent state of the database, and nothing can be written in it. The transaction lasts as
    long as this object at most: if an interrupt keeps the block from being left, what it leaves
    behind is rolled back.
    """

    # A slotted class: contextlib.contextmanager would cost a fifth of a short transaction.
    __slots__ = (
        "__weakref__",
        "_entered_in",
        "_handle",
        "_transaction",
        "_tx",
        "_writes",
        "thread",
    )

    _tx: Tx[Any]
    thread: int
    """The thread whose turn it is while the block is open."""

    def __init__(self, store: Store[T_co], *, writes: bool) -> None:
        self._handle = store._handle
        self._writes = writes
        self._transaction: OpenTransaction | None = None

    def __enter__(self) -> T_co:
        handle = self._handle
        if self._transaction is not None:
            raise NestedTransactionError(
                "this block is open already: each `with` needs a begin() or read() of its own"
            )
        begun = handle.begin_write(self) if self._writes else handle.begin_read(self)
        self._transaction, self._entered_in = begun, get_ident()
        try:
            tx: T_co = handle.make_tx(begun, None)
        except BaseException:
            self._end(begun, commit=False)
            raise
        self._tx = tx
        return tx

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        begun, tx = self._transaction, self._tx
        if begun is None or tx.transaction is None:
            if kind is None:
                # Of a forked child: transaction and locks are the parent's.
                _ = tx.own_cursor  # raises
            return
        if kind is None and self._entered_in != get_ident():  # only undoing it is anybody's
            raise ThreadError(self._entered_in, get_ident())
        tx.transaction = None
        self._end(begun, commit=kind is None)

    def _end(self, begun: OpenTransaction, *, commit: bool) -> None:
        self._transaction = None
        if self._writes:
            self._handle.end_write(self, begun, commit=commit)
        else:
            self._handle.end_read(self, begun)


def open_at(
    where: str | os.PathLike[str] | Store[Any] | None, schema: Schema, options: OpenOptions
) -> tuple[Handle, Settings]:
    """Open a handle on what stands at a path, or on what another store has open."""
    settings = Settings(**options)
    if isinstance(where, Store):
        return where._handle.beside(schema, settings), settings
    return open_handle(schema, where, settings), settings


def plain_function(what: str, function: Callable[..., R]) -> Callable[..., R]:
    """Return `function`, to be called in a transaction or as a step: CoroutineError if it is asynchronous.

    It can be seen at once if it is a coroutine function; if it gives an awaitable, only then. A
    generator function would run when the transaction is over: InvalidRecordError.
    """
    if not _runs_as_called(function):
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise CoroutineError(what)
        if not callable(function) or inspect.isgeneratorfunction(function):
            raise InvalidRecordError(
                what, shown(function), "must be a function that runs as it is called"
            )

    def plain(*given: Any) -> R:
        result = function(*given)
        if type(result) not in _NOT_AWAITABLE and inspect.isawaitable(result):
            if inspect.iscoroutine(result):
                result.close()  # it never runs, and says nothing about that
            raise CoroutineError(what)
        return result

    return plain


def finding_function(look: Callable[..., R | None]) -> Callable[..., R | None]:
    """Return a consumer's `look`, which has found nothing while what it gives is false."""
    plain = plain_function("look", look)

    def find(tx: Any) -> R | None:
        found = plain(tx)
        try:
            return found or None
        except Exception:  # noqa: BLE001 # reason: of what has no truth value: an array, say, which is something
            return found

    return find


def _runs_as_called(function: object) -> bool:
    """Whether one look shows it, as of nearly every function: it is written in Python, and nobody has marked it."""
    return (
        type(function) is FunctionType
        and not function.__code__.co_flags & _RUNS_LATER
        and not function.__dict__
    )


def touched_by(tx: Tx[Any]) -> Collection[Concern]:
    """Return what a look has gone over."""
    return set(tx.current.touched)  # the next transaction's are others


def deadline(timeout_ms: int | None) -> float:
    """Return when a wait that begins now has to end, on the monotonic clock in seconds."""
    if timeout_ms is None:
        return inf
    return monotonic() + check_count("timeout_ms", timeout_ms) / 1000
