"""A store as a consumer of asyncio has it open: the sync store, and calls that wait in line."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Collection, Generator, Sequence
from contextlib import suppress
from copy import copy
from functools import partial
from math import inf
from time import monotonic
from typing import Any, ClassVar, Final, Generic, Self, TypeVar

from lash_store._kernel.checks import check_kind
from lash_store._kernel.jobs import Lane, on_library_thread
from lash_store._kernel.threads import CHORES
from lash_store._kernel.watching import Concern, Waiter
from lash_store._stores.cancelling import close_thrown_away, finish_first, renewed_in_child
from lash_store._stores.store import (
    Search,
    Store,
    deadline,
    finding_function,
    plain_function,
    touched_by,
)
from lash_store._stores.tx import Tx
from lash_store._stores.uncopied import Uncopied
from lash_store.errors import LashStoreError, StoreBusyError, StoreClosedError

R = TypeVar("R")
T_co = TypeVar("T_co", bound=Tx[Any], covariant=True)


_OPENER: Final = "opener"
_LOOK_AGAIN_S: Final = 1.0
"""After how long a task sees for itself whether anybody opens what it waits for: an interrupt may have ended that."""


class _Waiting:
    """A task that waits for a store to be open, on its own event loop."""

    def __init__(self) -> None:
        self._loop, self._told = asyncio.get_running_loop(), asyncio.Event()
        self._error: LashStoreError | None = None

    async def for_its_end(self) -> None:
        """Wait until whoever opens it has ended; raise an error that is everybody's."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_AGAIN_S):
                await self._told.wait()
        self._told.clear()
        if self._error is not None:
            raise copy(self._error)

    def tell(self, error: LashStoreError | None) -> None:
        """Let it go on, from any thread."""
        self._error = self._error or error
        with suppress(RuntimeError):  # the loop has been closed in the meantime
            self._loop.call_soon_threadsafe(self._told.set)


class AsyncStore(Uncopied, Generic[T_co]):
    """An asyncio store: the same operations as coroutines, on threads that all stores share.

    It is a handle, as the sync store is. Opened by ``async with`` or ``await``, or else by its
    first operation. It is of no event loop: one after another, or several at once, may use it.
    """

    _lane: Lane | None = None
    """In which it waits to be opened; None if it opens at once."""

    _described_by: ClassVar[tuple[str, ...]] = ()
    """Attributes that it has in common with its sync store."""

    def __init__(self, open_store: Callable[..., Store[T_co]]) -> None:
        self._open_store = open_store
        """Opens it; with ``create=False`` what is there."""

        self._made: Store[T_co] | None = None
        """What was opened, for whoever waits for that."""

        self._store: Store[T_co] | None = None
        """The same, once anybody has got it."""

        self._is_closed = False
        self._renew_opening()
        renewed_in_child(self)

    def _renew_opening(self) -> None:
        """Let nobody be opening it: in a forked child those were the parent's."""
        self._opening = threading.RLock()
        self._waiting: set[_Waiting] = set()
        """Those who wait for it to be open."""

        self._opener: dict[str, _Waiting] = {}
        """The one of them that opens it: one entry, or none."""

    @classmethod
    def over(cls, store: Store[T_co], open_anew: Callable[..., Store[T_co]]) -> Self:
        """Return an asyncio store over a sync one that is open; closing it closes that.

        `open_anew` opens it once more, for what its tasks give back when it is closed before them.
        """
        made = cls(open_anew)
        made._store = made._made = store
        for name in cls._described_by:
            setattr(made, name, getattr(store, name))
        return made

    async def read_clock(self) -> int:
        """Return the time by the store's own clock; see :meth:`Store.read_clock`."""
        return (self._store or await self._opened()).read_clock()

    async def transact(self, work: Callable[[T_co], R], *, repeatable: bool = False) -> R:
        """Run `work` as one write transaction on a thread and return its result (K-GROUP-2).

        `work` gets the Tx and must not keep it. It is alone in its transaction; one that is
        `repeatable` may share it with operations that wait, and may run twice, so that whatever it
        does besides must bear that. Cancelled before it starts, it does not run; cancelled later,
        the transaction is finished first, and then CancelledError is raised. Raises CoroutineError,
        with everything rolled back, if `work` is asynchronous.
        """
        plain = plain_function("work", work)
        check_kind("repeatable", repeatable, bool)
        store = self._store or await self._opened()
        result: R = await store._handle.submit_write(None, plain, alone=not repeatable)
        return result

    async def read(self, work: Callable[[T_co], R]) -> R:
        """Run `work` on one snapshot on a thread and return its result.

        Raises CoroutineError if `work` is asynchronous.
        """
        plain = plain_function("work", work)
        store = self._store or await self._opened()
        handle = store._handle
        handle.check_not_writing()
        if handle.reads_in_turn:  # in line, not on a thread that waits: those who lead need one
            result: R = await handle.submit_read(None, plain)
            return result

        def read() -> R:
            with store.read() as tx:
                return plain(tx)

        return await on_library_thread(read, is_consumers=True)

    async def wait_until(
        self, look: Callable[[T_co], R | None], *, timeout_ms: int | None = None
    ) -> R | None:
        """Wait until `look`, in a snapshot, finds something; see :meth:`Store.wait_until`.

        It looks on a thread. Cancelling it ends the wait.
        """
        return await self._wait_looking(self.read, finding_function(look), timeout_ms)

    async def _wait_together(
        self, look: Callable[[T_co], R | None], timeout_ms: int | None
    ) -> R | None:
        """Do that with a look of the library's own, which is short: no consumer's work holds it up."""
        handle = (self._store or await self._opened())._handle
        return await self._wait_looking(partial(handle.submit_read, "wait"), look, timeout_ms)

    async def _wait_looking(
        self,
        read: Callable[[Callable[[Any], R | None]], Awaitable[R | None]],
        look: Callable[[Any], R | None],
        timeout_ms: int | None,
    ) -> R | None:
        touched: Collection[Concern] = ()

        def noting(tx: Any) -> R | None:
            nonlocal touched
            found = look(tx)
            touched = touched_by(tx)
            return found

        return await self._wait(lambda: read(noting), lambda: touched, timeout_ms)

    async def _wait_for(
        self, operation: str, search: Search[T_co, R], timeout_ms: int | None
    ) -> R | None:
        """Wait until what the library itself looks for is there: it looks with others at once."""
        store = self._store or await self._opened()
        handle = store._handle
        return await self._wait(
            lambda: handle.submit_read(operation, search),
            lambda: (),
            timeout_ms,
            store._probe(search),
            store._concerns(search),
        )

    async def _wait(
        self,
        look: Callable[[], Awaitable[R | None]],
        touched: Callable[[], Collection[Concern]],
        timeout_ms: int | None,
        probe: Callable[[Any], bool] | None = None,
        concerns: Sequence[Concern] = (),
    ) -> R | None:
        store = self._store or await self._opened()
        store._handle.check_not_writing()
        deadline_s = deadline(timeout_ms)
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def notify() -> None:
            try:
                loop.call_soon_threadsafe(changed.set)
            except RuntimeError:  # the loop has been closed in the meantime: nobody waits there
                watch.unsubscribe(waiter)

        watch, waiter = store.watch, Waiter(notify, probe)
        try:
            await on_library_thread(
                lambda: watch.subscribe(waiter, concerns, store._handle.ask), is_look=True
            )
            while True:
                changed.clear()
                left_s = deadline_s - monotonic()
                found = await look()
                if found is not None or left_s <= 0:
                    return found
                if watch.widen(waiter, touched()):
                    continue  # what was committed since then did not concern it yet
                # Not by wait_for(), which before Python 3.12 passes over being cancelled.
                with suppress(TimeoutError):
                    async with asyncio.timeout(None if left_s == inf else left_s):
                        await changed.wait()
        finally:
            watch.unsubscribe(waiter)

    async def _write_anew(
        self, operation: str, making: Callable[[Any], Callable[[Any], Any]]
    ) -> Any:
        """Do one write in a store that was closed before its tasks were over, as leaving `async with` does."""
        anew = self._anew(operation, making)
        return None if anew is None else await on_library_thread(anew)

    def _anew(
        self, operation: str, making: Callable[[Any], Callable[[Any], Any]]
    ) -> Callable[[], Any] | None:
        """Return what does that; None if nothing is left of what was closed."""
        if self._store is not None and self._store.path == ":memory:":
            return None

        def write() -> Any:
            with self._open_store(create=False) as store:
                return store._handle.write(operation, making(store._context))

        return write

    async def check_schema(self) -> None:
        """Raise SchemaDriftError or SchemaVersionError unless the file is as declared."""
        store = self._store or await self._opened()
        await store._handle.submit_check_schema()

    async def aclose(self) -> None:
        """Finish what has started, refuse the rest, and close the store; idempotent."""
        await finish_first(on_library_thread(self.close))

    def close(self) -> None:
        """Do what :meth:`aclose` does, on this thread: it needs no event loop."""
        self._is_closed = True  # first: what is being opened now is closed by who opens it
        with self._opening:  # and that is waited for: nothing of the file is open when this returns
            made = self._made
        if made is not None:
            made.close()

    async def __aenter__(self) -> Self:
        try:
            store = await self._opened()
        except BaseException:
            CHORES.submit(self._close_unless_wanted)  # it may be open by now
            raise
        if store.closed:
            raise StoreClosedError(store.path)
        return self

    def _close_unless_wanted(self) -> None:
        """Close what was opened for who was cancelled meanwhile, unless others have it, or wait for it."""
        with self._opening:
            # In this order: who has got it waits until it is seen that somebody has.
            if self._waiting or self._store is not None or self._made is None:
                return
            left, self._made = self._made, None
        with suppress(LashStoreError):
            left.close()

    async def __aexit__(self, kind: object = None, *_: object) -> None:
        if kind is GeneratorExit:
            close_thrown_away(self.close)
        else:
            await self.aclose()

    def __await__(self) -> Generator[Any, None, Self]:
        return self.__aenter__().__await__()

    async def _opened(self) -> Store[T_co]:
        """Open it unless it is open; of several who come at once, one does, and takes a thread for it."""
        if self._store is None:
            me = _Waiting()
            self._waiting.add(me)
            try:
                return await self._open_in_turn(me)
            finally:
                self._waiting.discard(me)
        return self._store

    async def _open_in_turn(self, me: _Waiting) -> Store[T_co]:
        while self._store is None:
            if self._opener.setdefault(_OPENER, me) is not me:
                await me.for_its_end()
                continue
            everybodys: LashStoreError | None = None
            try:
                # Who is cancelled does not wait: it is open for whoever comes next, or closed then.
                self._store = await on_library_thread(self._open, may_be_left=True, lane=self._lane)
            except LashStoreError as error:
                everybodys = None if isinstance(error, StoreBusyError) else error
                raise
            finally:
                self._let_others_go_on(everybodys)
        return self._store

    def _let_others_go_on(self, error: LashStoreError | None) -> None:
        """Wake those who wait for the one that has opened it; one that may pass is no `error` of theirs."""
        self._opener.clear()
        for each in list(self._waiting):
            each.tell(error)

    def _open(self) -> Store[T_co]:
        with self._opening:
            store = self._made
            if self._is_closed:
                raise StoreClosedError("asyncio store" if store is None else store.path)
            if store is None:
                store = self._made = self._open_store()
                if self._is_closed:  # while it was opened
                    store.close()
                    raise StoreClosedError(store.path)
            return store
