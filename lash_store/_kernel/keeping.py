"""The keeper: renews what is held, for as long as it is held, on the library's timer.

One for a process, however many terms it keeps. It never waits for anything: what is due in one
database is handed in there together, to be run with what else waits, and whoever runs it tells how
it ended. A file that is locked keeps nobody's term on another from being renewed.

A term is over by whichever clock says so first: the store's own, by which every other claimant goes;
or the steady time since the last acknowledged renewal was *sent*, which no change of the machine's
clock can move.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary, WeakSet

from lash_store._kernel.backend import Handle
from lash_store._kernel.calls import Call
from lash_store._kernel.logs import lost_term, tell
from lash_store._kernel.posix import in_forked_child
from lash_store._kernel.steady import steady_ms
from lash_store._kernel.threads import TIMER
from lash_store.clock import Clock
from lash_store.errors import (
    LashStoreError,
    LeaseLostError,
    StorageError,
    StoreBusyError,
)

_TICK_S: Final = 0.05
"""What is due in one database within this time goes together."""

_AGAIN_MS: Final = 100
"""When to try again what could not be renewed, for a reason that may pass."""

_LATER_S: Final = 10.0
"""How long what nobody waits for may wait."""

_MAY_PASS: Final = (StoreBusyError, StorageError)


class Term(Protocol):
    """What is renewed: a lease, a claim on work, a step."""

    @property
    def expires_at_ms(self) -> int:
        """When it is over by the store's clock, exclusive, milliseconds since the epoch."""


class Kept:
    """One term that is held: as it was last acknowledged, when that was asked for, and how it was lost."""

    def __init__(
        self,
        handle: Handle,
        clock: Clock,
        term: Any,
        *,
        ttl_ms: int,
        sent_ms: float,
        operation: str,
        renewing: Callable[[Any], Callable[[Any], Any]],
        lost_error: Callable[[Any], LashStoreError],
    ) -> None:
        self.handle = handle
        self.clock = clock
        self.term = term
        self.ttl_ms = ttl_ms
        self.operation = operation
        self.renewing = renewing
        self.lost: LashStoreError | None = None
        """Why it is lost; None while it is held."""

        self.renewals = 0
        """How many renewals were committed."""

        self.loop: asyncio.AbstractEventLoop | None = None
        """The event loop that it is held in: once that is closed, nobody does."""

        self.is_inherited = False
        """Whether it is the parent's, of which this process was forked."""

        self.until_ms = sent_ms + ttl_ms
        """When it is over, by the steady time since the last acknowledged renewal was sent."""

        self._lost_error = lost_error
        self._expires_at_ms = term.expires_at_ms
        self._due_ms = sent_ms + ttl_ms / 3
        self._is_in_flight = False
        self._over: threading.Event | None = None
        self._told: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def check(self) -> None:
        """Raise what says that the term is over; costs no I/O."""
        if self.lost is None and (
            self.handle.read_clock(self.clock) >= self._expires_at_ms
            or steady_ms(self.clock) >= self.until_ms
        ):
            self.lose(self._lost_error(self.term))
        if self.lost is not None:
            raise self.lost.with_traceback(None)  # else each raising would lengthen it

    def lose(self, error: LashStoreError) -> None:
        """Note that the term is lost, once, and tell whoever waits for that.

        What its own holder has given back or completed is logged as no loss.
        """
        if self.end(error) and getattr(error, "reason", None) not in ("released", "completed"):
            tell([lost_term(self.handle.path, self.term, error)])

    def end(self, error: LashStoreError) -> bool:
        """Do that without a word in the log; tell whether it was not lost before."""
        with self._lock:
            if self.lost is not None:
                return False
            self.lost = error
            told, self._told = self._told, []
            if self._over is not None:
                self._over.set()
        for each in told:
            each()
        return True

    @property
    def fence(self) -> Any:
        """What proves the term."""
        return self.term.fence

    def holds(self, fence: Any) -> bool:
        """Whether it holds the very term that `fence` proves, which an owner may claim twice."""
        return self.lost is None and bool(self.fence == fence)

    def end_with(self, other: Kept) -> None:
        """Be over when another block's is, which has just moved the end of the very same term."""
        self._expires_at_ms, self.until_ms = other.term.expires_at_ms, other.until_ms

    def renew_soon(self) -> None:
        """Let its next renewal be due now."""
        self._due_ms = min(self._due_ms, steady_ms(self.clock))

    def when_lost(self, told: Callable[[], None]) -> None:
        """Call `told`, from any thread, once the term is lost: at once, if it is."""
        with self._lock:
            if self.lost is None:
                self._told.append(told)
                return
        told()

    def tell_no_more(self, told: Callable[[], None]) -> None:
        """Don't call `told` any more."""
        with self._lock, suppress(ValueError):
            self._told.remove(told)

    def leave(self) -> None:
        """Let it be over: its block was left, and what it has held was released, or is another block's."""
        error = self._lost_error(self.term)
        if isinstance(error, LeaseLostError):
            error = LeaseLostError(error.expected, None, "released")
        self.end(error)

    def wait_lost(self, timeout_s: float | None) -> LashStoreError | None:
        """Wait until it is lost, and return why; None after `timeout_s`."""
        with self._lock:
            over = self._over = self._over or threading.Event()  # which few ever wait for
            if self.lost is not None:
                over.set()
        over.wait(None if timeout_s is None else min(timeout_s, threading.TIMEOUT_MAX))
        return self.lost

    def next_ms(self) -> float:
        """Return when there is something to do: the next renewal, or while that is asked for, the end."""
        return self.until_ms if self._is_in_flight else min(self._due_ms, self.until_ms)

    def asked(
        self, by_ms: float
    ) -> tuple[str, Callable[[Any], Any], float, Callable[[Call], None]] | None:
        """Return the call that renews it, if that is due by `by_ms`."""
        now_ms = steady_ms(self.clock)
        if self._is_in_flight or self._due_ms > by_ms or self.lost is not None:
            return None
        self._is_in_flight = True
        # A renewal that comes late may still find that nobody has taken over; it is over all the same.
        budget_s = max(self.until_ms - now_ms, 0) / 1000
        return self.operation, self.renewing(self.term), budget_s, partial(self._answered, now_ms)

    def _answered(self, sent_ms: float, call: Call) -> None:
        error = call.error
        if error is None:
            self.term, self.until_ms = call.result, sent_ms + self.ttl_ms
            self._expires_at_ms = self.term.expires_at_ms
            self._due_ms = sent_ms + self.ttl_ms / 3
            self.renewals += 1
            KEEPER.tell_others(self)
        elif isinstance(error, _MAY_PASS):
            self._due_ms = steady_ms(self.clock) + _AGAIN_MS
        elif isinstance(error, LashStoreError):
            self.lose(error)
        else:
            self.lose(self._lost_error(self.term))
        self._is_in_flight = False
        KEEPER.look_soon(self)


class _Book:
    """What is kept in one database."""

    def __init__(self) -> None:
        self.kept: set[Kept] = set()
        self.by_token: dict[str, list[Kept]] = {}
        """The same: most tokens are one block's, and blocks of one owner may have one token."""

        self.at_s = 0.0
        """When the timer looks next, on the monotonic clock; 0 if it does not."""

    def add(self, kept: Kept) -> None:
        self.kept.add(kept)
        self.by_token.setdefault(kept.fence.token, []).append(kept)

    def discard(self, kept: Kept) -> None:
        self.kept.discard(kept)
        token = kept.fence.token
        same = self.by_token.get(token, [])
        with suppress(ValueError):  # an interrupt may have kept it from being added
            same.remove(kept)
        if not same:
            self.by_token.pop(token, None)

    def holders(self, fence: Any) -> list[Kept]:
        return [each for each in self.by_token.get(fence.token, ()) if each.holds(fence)]


class Entering:
    """A block that is being entered: what it has claimed, in a transaction that may not be over yet."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.term: Any = None


class Keeper:
    """Who renews; see the head of this module."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._books: dict[str, _Book] = {}
        self._entering: WeakSet[Entering] = WeakSet()
        """Those that have claimed something; an interrupt may leave one here, which lives no longer."""

        self._wakes: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()
        """Which databases a clock looks into when it is moved."""

    def keep(self, kept: Kept) -> None:
        """Renew a term from now on."""
        with self._lock:
            self._books.setdefault(kept.handle.key, _Book()).add(kept)
        self.tell_others(kept)
        subscribe = getattr(kept.clock, "when_moved", None)
        if subscribe is not None:
            keys = self._wakes.setdefault(kept.clock, set())
            if kept.handle.key not in keys:
                keys.add(kept.handle.key)
                subscribe(partial(self._look, kept.handle.key))
        self.look_soon(kept)

    def drop(self, kept: Kept) -> None:
        """Renew it no more."""
        with self._lock:
            book = self._books.get(kept.handle.key)
            if book is not None:
                book.discard(kept)
                # The look that is due stays: one step after another would wake the timer each time.
                if not book.kept and not book.at_s:
                    del self._books[kept.handle.key]

    def claimed(self, entering: Entering, term: Any) -> None:
        """Note what a block that is being entered has claimed; None for nothing."""
        with self._lock:
            entering.term = term
            (self._entering.discard if term is None else self._entering.add)(entering)

    def entered(self, entering: Entering) -> None:
        """Note that it is kept by now, or was not entered."""
        with self._lock:
            self._entering.discard(entering)

    def is_held(self, key: str, fence: Any) -> bool:
        """Whether a block of this process holds a term, or is being entered with it (K-HOLD-5).

        Asked in the transaction that would release it, it is the truth: claims of it are behind its lock.
        """
        with self._lock:
            entering = any(each.key == key and each.term.fence == fence for each in self._entering)
            return entering or bool(self._holders(key, fence))

    def leave_to_others(self, key: str, fence: Any) -> bool:
        """Whether another block keeps a term that one block does no more; it is not released then (K-HOLD-5).

        Who keeps it renews it at once: the end that the other has moved may come sooner than its own.
        """
        with self._lock:
            others = self._holders(key, fence)
        for each in others:
            each.renew_soon()
            self.look_soon(each)
        return bool(others)

    def tell_others(self, kept: Kept) -> None:
        """Tell the other blocks that have the very same term when it is over now."""
        with self._lock:
            for each in self._holders(kept.handle.key, kept.fence):
                each.end_with(kept)

    def _holders(self, key: str, fence: Any) -> list[Kept]:
        book = self._books.get(key)
        return [] if book is None else book.holders(fence)

    def look_soon(self, kept: Kept) -> None:
        """Look again when there is something to do for it."""
        if hasattr(kept.clock, "steady_ms"):
            # Whoever moves the clock wakes the keeper; but it may have been moved in the meantime.
            if kept.next_ms() <= steady_ms(kept.clock) and kept.lost is None:
                self._look(kept.handle.key)
            return
        soonest_s = min(_TICK_S, kept.ttl_ms / 6_000)
        wait_s = max(soonest_s, kept.next_ms() / 1000 - monotonic())
        at_s = monotonic() + wait_s
        key = kept.handle.key
        with self._lock:
            book = self._books.get(key)
            if book is None or kept not in book.kept or 0 < book.at_s <= at_s:
                return
            # First: an interrupt in between would leave a look noted that never comes.
            TIMER.after(wait_s, lambda: self._tick(key, at_s))
            book.at_s = at_s

    def _tick(self, key: str, at_s: float) -> None:
        with self._lock:
            book = self._books.get(key)
            if book is None or book.at_s != at_s:
                return  # another look is due instead
            book.at_s = 0.0
            if not book.kept:
                del self._books[key]
                return
        self._look(key)

    def _look(self, key: str) -> None:
        """Ask for what is due in one database, all at once; and see what is over."""
        with self._lock:
            book = self._books.get(key)
            kept = [] if book is None else list(book.kept)
        asked: dict[int, tuple[Handle, list[Any]]] = {}
        for each in kept:
            now_ms = steady_ms(each.clock)
            if now_ms >= each.until_ms:
                each.lose(each._lost_error(each.term))  # noqa: SLF001 # reason: of the same module
            if each.lost is not None or (each.loop is not None and each.loop.is_closed()):
                self.drop(each)
                continue
            call = each.asked(now_ms + min(_TICK_S * 1000, each.ttl_ms / 10))
            if call is not None:
                asked.setdefault(id(each.handle), (each.handle, []))[1].append(call)
        for handle, calls in asked.values():
            handle.submit_told(calls)
        for each in kept:
            if each.lost is None:
                self.look_soon(each)

    def forget(self) -> None:
        """Keep nothing of what the parent process holds."""
        inherited = [each for book in self._books.values() for each in book.kept]
        self._lock = threading.RLock()
        self._books, self._entering = {}, WeakSet()
        for each in inherited:
            each.is_inherited = True
            each._lock = threading.Lock()  # noqa: SLF001 # reason: the thread that held it is the parent's
            each.end(each._lost_error(each.term))  # noqa: SLF001 # reason: likewise


KEEPER: Final = Keeper()

in_forked_child(KEEPER.forget)


def tell_later(handle: Handle, operation: str, work: Callable[[Any], Any]) -> None:
    """Let an operation be done soon, of whose end nobody hears; from wherever a garbage collector comes."""

    def tell() -> None:
        with suppress(LashStoreError):  # it was closed
            handle.submit_told([(operation, work, _LATER_S, lambda _: None)])

    TIMER.after(0, tell)
