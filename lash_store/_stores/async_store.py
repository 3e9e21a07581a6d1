"""A store as a consumer of asyncio has it open: the sync store, on two threads of its own."""

import asyncio
import threading
from collections.abc import Callable, Generator
from contextlib import suppress
from math import inf
from time import monotonic
from typing import Any, Generic, Self, TypeVar

from lash_store._stores.store import Store, deadline
from lash_store._stores.tx import Tx
from lash_store._stores.worker import Worker
from lash_store.errors import StoreClosedError

R = TypeVar("R")
T_co = TypeVar("T_co", bound=Tx[Any], covariant=True)


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

        def transact() -> R:
            with self._sync().begin() as tx:
                return work(tx)

        return await self._writer.run(transact)

    async def read(self, work: Callable[[T_co], R]) -> R:
        """Run `work` on one snapshot on the reading thread and return its result."""

        def read() -> R:
            with self._sync().read() as tx:
                return work(tx)

        await self._opened()
        return await self._reader.run(read)

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

    async def _on_thread(self, call: Callable[[Store[T_co]], R], *, writes: bool) -> R:
        """Run a one-call operation of the sync store, on the thread for what it does."""
        if writes:
            return await self._writer.run(lambda: call(self._sync()))
        await self._opened()
        return await self._reader.run(lambda: call(self._sync()))

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
