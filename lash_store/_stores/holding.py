"""Holding a term for longer than one call: claimed, renewed in time, released.

    with session.hold(owner_id=me, ttl_ms=30_000) as held:
        for step in steps:
            held.check()                       # costs nothing; raises once the term is over
            ...
            session.commit_turn(TurnCommit(fence=held.fence, ...))

The keeper renews; the fence protects. ``check()`` is for who wants to stop in time: what is written
under a fence is refused without it as well.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from lash_store._kernel.checks import check_count
from lash_store._kernel.keeping import KEEPER, Entering
from lash_store._kernel.kept import Kept
from lash_store._kernel.leases import LeaseHeld
from lash_store._kernel.steady import steady_ms
from lash_store._stores import lines
from lash_store._stores.async_store import AsyncStore
from lash_store._stores.releasing import Releasing, noting
from lash_store._stores.store import Store
from lash_store._stores.tx import Context
from lash_store.errors import (
    InvalidRecordError,
    LashStoreError,
    LeaseHeldError,
    LeaseLostReason,
    NestedTransactionError,
    StoreClosedError,
)

TermT_co = TypeVar("TermT_co", covariant=True)
HeldT_co = TypeVar("HeldT_co", covariant=True)
FenceT_co = TypeVar("FenceT_co", covariant=True)

Work = Callable[[Any], Any]
"""What is done in a transaction."""


class Fenced(Protocol[FenceT_co]):
    """A term that is proved by a fence."""

    @property
    def fence(self) -> FenceT_co:
        """What proves it."""


class Held(Generic[TermT_co]):
    """A term that is held, until its block ends or it is lost."""

    def __init__(self, kept: Kept, back: Releasing | None = None) -> None:
        self._kept, self._back = kept, back

    @property
    def term(self) -> TermT_co:
        """The lease, or the claim, as it was last acknowledged."""
        term: TermT_co = self._kept.term
        return term

    @property
    def fence(self: Held[Fenced[FenceT_co]]) -> FenceT_co:
        """What proves it: a lease's fence; a claim on work is its own."""
        return self.term.fence

    @property
    def renewals(self) -> int:
        """How many renewals were committed so far."""
        return self._kept.renewals

    @property
    def lost(self) -> LashStoreError | None:
        """Why it is lost: LeaseLostError, ClaimLostError; None as long as it is held, in its block.

        A look at it is a look at the clocks too; it costs no I/O.
        """
        with suppress(LashStoreError):
            self._kept.check()
        return self._kept.lost

    def check(self) -> None:
        """Raise what says why the term is lost, or nothing; costs no I/O (K-HOLD-3).

        It is over by the store's clock or by steady time since the last acknowledged renewal was
        sent, whichever comes first; and once its block was left.
        """
        self._kept.check()

    def keep_for(self, *, ttl_ms: int) -> None:
        """Keep the term for `ttl_ms` once the block is left, in the place of releasing it then (K-HOLD-7).

        For what has failed and is to be tried later: until the term is over others have their turn, and
        nobody has to renew it. Costs no I/O by itself; the last word holds. Whoever has lost the term, or
        completed what it was for, keeps nothing. InvalidRecordError unless it is 1 at least.
        """
        if check_count("ttl_ms", ttl_ms) == 0:
            raise InvalidRecordError(
                "ttl_ms", "0", "must be at least 1: leaving the block releases"
            )
        if self._back is None:
            raise InvalidRecordError(
                "ttl_ms", str(ttl_ms), "of a step, which no block of hold() holds"
            )
        self._back.kept_for_ms = ttl_ms

    def wait_lost(self, *, timeout_ms: int | None = None) -> LashStoreError | None:
        """Wait until it is lost, and return why; None after `timeout_ms`."""
        timeout_s = None if timeout_ms is None else check_count("timeout_ms", timeout_ms) / 1000
        return self._kept.wait_lost(timeout_s)

    async def until_lost(self) -> LashStoreError:
        """Wait in an event loop until it is lost, and return why; cancelling it ends the wait."""
        loop, lost = asyncio.get_running_loop(), asyncio.Event()

        def told() -> None:
            with suppress(RuntimeError):  # the loop has been closed in the meantime
                loop.call_soon_threadsafe(lost.set)

        self._kept.when_lost(told)
        try:
            await lost.wait()
        finally:
            self._kept.tell_no_more(told)
        assert self._kept.lost is not None
        return self._kept.lost

    def __repr__(self) -> str:
        return f"<Held {self.term!r}{'' if self._kept.lost is None else ', lost'}>"


class Holding(Generic[HeldT_co]):
    """What ``hold()`` gives: a block in which a term is held, sync or asyncio.

    Entered, it claims: LeaseHeldError while somebody else holds the term, after waiting for it for
    `timeout_ms`; of those of this process that wait for one `name`, the first looks for all. Left, it releases, whatever the block has raised, and raises nothing of its own.
    InvalidRecordError for ``with`` on an asyncio store, and ``async with`` on another.
    """

    def __init__(
        self,
        store: Store[Any] | AsyncStore[Any],
        *,
        operations: tuple[str, str, str],
        claiming: Callable[[Context], Work],
        renewing: Callable[[Context, Any, int], Work],
        releasing: Callable[[Context, Any], Work],
        ends_ms: Callable[[Any], int | None],
        lost_error: Callable[[Any, LeaseLostReason], LashStoreError],
        ttl_ms: int,
        timeout_ms: int = 0,
        name: str | None = None,
        is_own: Callable[[Any], bool] = lambda _: False,
    ) -> None:
        self._given, self._name, self._is_own = store, name, is_own
        self._operations = operations
        self._claiming, self._renewing = claiming, renewing
        self._new_back = partial(Releasing, operations[1:], renewing, releasing, ends_ms)
        self._back = self._new_back()
        self._let_go: Any = None
        self._ends_ms = ends_ms
        self._lost_error = lost_error
        if check_count("ttl_ms", ttl_ms) == 0:
            raise InvalidRecordError("ttl_ms", "0", "must be at least 1: it is to be held")
        self._ttl_ms = ttl_ms
        self._timeout_ms = check_count("timeout_ms", timeout_ms)
        self._kept: Kept | None = None

    def __enter__(self) -> HeldT_co:
        store = self._given
        if not isinstance(store, Store):
            raise _wrong_way("with", "of an asyncio store it is entered by `async with`")
        self._begin_anew()
        waiting = lines.Patience(store._context.clock, self._timeout_ms)
        entering = Entering(store._handle.key)
        work = noting(entering, self._claiming(store._context))
        standing = lines.InThread(self._line(store)) if self._comes_behind(store) else None
        try:
            while True:
                if standing is not None:
                    standing.until_first(
                        waiting.left_ms, lambda: store._handle.read("wait", self._freed)
                    )
                found = store._handle.write(self._operations[0], work)
                if not isinstance(found, LeaseHeld):
                    held: HeldT_co = self._held(store, found, entering.sent_ms)
                    return held
                left_ms = self._left_ms(store, found, waiting)
                standing = standing or lines.InThread(self._line(store))
                if standing.place.is_first:
                    store.wait_until(self._freed_before(found), timeout_ms=left_ms)
        except BaseException:
            KEEPER.entered(entering)
            if entering.term is not None:  # it was claimed all the same
                self._end_by_interrupt(store, entering.term, self._kept)
            raise
        finally:
            KEEPER.entered(entering)
            if standing is not None:
                standing.place.leave()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        store, held = self._given, self._kept
        assert isinstance(store, Store)
        try:
            kept = self._stopped()
            if kept is not None:
                self._back.release(store, kept.term)
        except BaseException:  # an interrupt, which a release does not hear of
            if held is not None and not held.is_inherited:
                self._end_by_interrupt(store, held.term, held)
            raise

    async def __aenter__(self) -> HeldT_co:
        given = self._given
        if not isinstance(given, AsyncStore):
            raise _wrong_way("async with", "of a store without asyncio it is entered by `with`")
        self._begin_anew()
        store = given._store or await given._opened()
        waiting = lines.Patience(store._context.clock, self._timeout_ms)
        entering = Entering(store._handle.key)
        work = noting(entering, self._claiming(store._context))
        standing = lines.InLoop(self._line(store)) if self._comes_behind(store) else None
        is_late = False
        try:
            while True:
                if standing is not None:
                    await standing.until_first(
                        waiting.left_ms, lambda: store._handle.submit_read("wait", self._freed)
                    )
                found = await store._handle.submit_write(self._operations[0], work)
                if not isinstance(found, LeaseHeld):
                    until_ms = entering.sent_ms + self._ttl_ms
                    if not is_late and steady_ms(store._context.clock) >= until_ms:
                        is_late = True  # the loop was kept from going on: once more it claims
                        continue
                    loop = asyncio.get_running_loop()
                    held: HeldT_co = self._held(store, found, entering.sent_ms, loop)
                    return held
                left_ms = self._left_ms(store, found, waiting)
                standing = standing or lines.InLoop(self._line(store))
                if standing.place.is_first:
                    await given._wait_together(self._freed_before(found), left_ms)
        except (asyncio.CancelledError, StoreClosedError, GeneratorExit) as error:
            KEEPER.entered(entering)
            if entering.term is not None:  # it was claimed all the same
                await self._give_back(type(error), given, store, entering.term)
            raise
        finally:
            KEEPER.entered(entering)
            if standing is not None:
                standing.place.leave()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        given, kept = self._given, self._stopped()
        assert isinstance(given, AsyncStore)
        if kept is None or given._store is None:
            return
        await self._give_back(kind, given, given._store, kept.term)

    async def _give_back(
        self, kind: object, given: AsyncStore[Any], store: Store[Any], term: Any
    ) -> None:
        if kind is GeneratorExit:  # its coroutine is thrown away, and can't await anything
            self._back.release_soon(store, term, given)
        else:
            await self._back.release_async(given, store, term)

    def _end_by_interrupt(self, store: Store[Any], term: Any, kept: Kept | None) -> None:
        """Give a term back that nobody is in any more, before whatever this thread does next."""
        self._kept = None
        if kept is not None:
            KEEPER.drop(kept)
            if self._let_go is not None:
                self._let_go.detach()
            kept.leave()
        self._back.release_soon(store, term, in_line=True)

    def _held(
        self,
        store: Store[Any],
        term: Any,
        sent_ms: float,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> Any:
        """Return what the block is given: a Held, or None where nothing was found to be held."""
        if term is None:
            return None
        if store.closed:
            raise StoreClosedError(store.path)
        context, renewing, ttl_ms = store._context, self._renewing, self._ttl_ms
        self._kept = kept = Kept(
            store._handle,
            context.clock,
            term,
            ttl_ms=ttl_ms,
            sent_ms=sent_ms,
            operation=self._operations[1],
            renewing=lambda held: renewing(context, held, ttl_ms),
            lost_error=self._lost_error,
        )
        kept.loop = loop
        # An interrupt may keep the block from being entered, or left: nobody else would end it then.
        given = self._given if isinstance(self._given, AsyncStore) else None
        self._let_go = weakref.finalize(self, _let_go, self._back, kept, store, given)
        self._let_go.atexit = False
        KEEPER.keep(kept)
        return Held(kept, self._back)

    def _begin_anew(self) -> None:
        if self._kept is not None:
            raise NestedTransactionError(
                "this block is open already: each `with` needs a hold() of its own"
            )
        self._back = self._new_back()  # what was said of a block before this one is none of its

    def _line(self, store: Store[Any]) -> lines.Key:
        return store._handle.key, self._name or ""

    def _comes_behind(self, store: Store[Any]) -> bool:
        """Whether others of this process wait for it already, and this one would wait as well: it doesn't overtake.

        Whose own it is waits for nobody: they would wait for each other (K-HOLD-5).
        """
        return (
            self._name is not None
            and self._timeout_ms > 0
            and lines.is_waited_for(self._line(store))
            and not KEEPER.has(store._handle.key, self._is_own)
        )

    def _freed(self, tx: Any, before_ms: int = 0) -> bool | None:
        ends_ms = self._ends_ms(tx)
        return True if ends_ms is None or ends_ms < before_ms else None

    def _freed_before(self, found: LeaseHeld) -> Callable[[Any], bool | None]:
        """Return what looks whether it is free, or is to be sooner than `found` says: then it is waited for anew."""
        return lambda tx: self._freed(tx, found.expires_at_ms)

    def _stopped(self) -> Kept | None:
        """Renew it no more; return what is to be released: not what an outer block holds as well (K-HOLD-5)."""
        kept, self._kept = self._kept, None
        if kept is None:
            return None
        KEEPER.drop(kept)
        self._let_go.detach()  # only now: it is what ends it if an interrupt comes before
        is_others_too = KEEPER.leave_to_others(kept.handle.key, kept.fence)
        kept.leave()
        return None if is_others_too or kept.is_inherited else kept

    def _left_ms(self, store: Store[Any], found: LeaseHeld, waiting: lines.Patience) -> int:
        """Return for how long to wait for what somebody else holds; raise if that is over."""
        left_ms = waiting.left_ms()
        if left_ms <= 0:
            raise LeaseHeldError(found)
        until_over_ms = found.expires_at_ms - store.read_clock()
        return max(1, int(min(left_ms, until_over_ms)))


def _let_go(back: Releasing, kept: Kept, store: Store[Any], given: AsyncStore[Any] | None) -> None:
    """End what a block has held that nobody is in any more."""
    KEEPER.drop(kept)
    kept.leave()
    if not kept.is_inherited:
        back.release_soon(store, kept.term, given)


def _wrong_way(used: str, why: str) -> InvalidRecordError:
    return InvalidRecordError("hold()", repr(used), why)
