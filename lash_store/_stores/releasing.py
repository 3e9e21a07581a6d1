"""Giving a term back that a block has held, whatever keeps it from being given back at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lash_store._kernel.keeping import KEEPER, Entering, Leaving, NotEnteredError
from lash_store._kernel.later import do_later
from lash_store._kernel.leases import LeaseHeld
from lash_store._kernel.locks import locked_as
from lash_store._kernel.logs import not_released, tell
from lash_store._kernel.steady import asked_ms
from lash_store._stores.async_store import AsyncStore
from lash_store._stores.cancelling import finish_first
from lash_store._stores.store import Store
from lash_store._stores.tx import Context
from lash_store.errors import (
    ClaimLostError,
    LashStoreError,
    LeaseLostError,
    NestedTransactionError,
    StoreClosedError,
)

Work = Callable[[Any], Any]
"""What is done in a transaction."""


class Releasing:
    """How the term of one block is given back, in a sync store or an asyncio store."""

    def __init__(
        self,
        operations: tuple[str, ...],
        renewing: Callable[[Context, Any, int], Work],
        releasing: Callable[[Context, Any], Work],
        ends_ms: Callable[[Any], int | None],
    ) -> None:
        self._operations, self._renewing, self._releasing = operations, renewing, releasing
        self._ends_ms = ends_ms
        self.kept_for_ms: int | None = None
        """For how long it is kept, in the place of being given back; None if it is not."""

    @property
    def _operation(self) -> str:
        return self._operations[self.kept_for_ms is None]

    def release(self, store: Store[Any], term: Any) -> None:
        """Do it on this thread; soon, if that is inside a transaction."""
        with _told_if_not_released(store.path, term):
            try:
                store._handle.write(
                    self._operation, self._work(store._handle.key, store._context, term)
                )
            except NestedTransactionError:
                self.release_soon(store, term, in_line=True)

    async def release_async(self, given: AsyncStore[Any], store: Store[Any], term: Any) -> None:
        """Do it in an event loop, whether that cancels it or not; in a store that was closed, anew."""
        await finish_first(self._release(given, store, term))

    async def _release(self, given: AsyncStore[Any], store: Store[Any], term: Any) -> None:
        handle = store._handle
        with _told_if_not_released(store.path, term):
            try:
                work = self._work(handle.key, store._context, term)
                await handle.submit_write(self._operation, work, is_kept=True)
            except StoreClosedError:
                await given._write_anew(
                    self._operation, lambda context: self._work(handle.key, context, term)
                )
            except NestedTransactionError:  # another task's, on the same thread
                self.release_soon(store, term, given, in_line=True)

    def release_soon(
        self,
        store: Store[Any],
        term: Any,
        given: AsyncStore[Any] | None = None,
        *,
        in_line: bool = False,
    ) -> None:
        """Have it done, and wait for nothing: a coroutine is thrown away, say, and can't await anything."""
        key, anew = store._handle.key, None
        leaving = None if in_line else KEEPER.leaving(term.fence)
        if given is not None:
            anew = given._anew(
                self._operation, lambda context: self._work(key, context, term, leaving)
            )
        do_later(
            store._handle,
            self._operation,
            self._work(key, store._context, term, leaving),
            anew=anew,
            failed=lambda error: _tell(store.path, term, error),
            in_line=in_line,
        )

    def _work(self, key: str, context: Context, term: Any, leaving: Leaving | None = None) -> Work:
        """Return what releases a term in a transaction, unless another block has it by then (K-HOLD-5).

        If that is late, its owner may have claimed it again by hand, and has the same one.
        """
        if self.kept_for_ms is None:
            work = self._releasing(context, term)
        else:
            work = self._renewing(context, term, self.kept_for_ms)

        def release(tx: Any) -> Any:
            again = leaving and leaving.claimed_until_ms
            if KEEPER.is_held(key, term.fence) or (again and self._ends_ms(tx) in again):
                return None
            released = work(tx)
            # A lease on a table of the consumer's own is behind the lock of its row alone.
            if KEEPER.is_held(key, term.fence):
                raise _HeldElsewhereError
            return released

        return locked_as(release, work)


class _HeldElsewhereError(LashStoreError):
    """Undoes a release: another block of this process has the same term."""


@contextmanager
def _told_if_not_released(path: str, term: Any) -> Iterator[None]:
    """Pass over what keeps a term from being released: it runs out by itself as well."""
    try:
        yield
    except LashStoreError as error:
        _tell(path, term, error)


def _tell(path: str, term: Any, error: LashStoreError) -> None:
    if not isinstance(error, (LeaseLostError, ClaimLostError, _HeldElsewhereError)):
        tell([not_released(path, term, error)])  # else it is over, or goes on


def noting(entering: Entering, work: Work) -> Work:
    """Return a claim that notes what it has claimed, before its transaction is over."""

    def claim(tx: Any) -> Any:
        KEEPER.claimed(entering, None)  # what was tried before was undone
        entering.sent_ms = asked_ms(tx)
        found = work(tx)
        if not KEEPER.claimed(entering, None if isinstance(found, LeaseHeld) else found):
            raise NotEnteredError
        return found

    return locked_as(claim, work)
