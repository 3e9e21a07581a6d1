"""The keeper: renews what is held, for as long as it is held, on the library's timer.

One for a process, however many terms it keeps. It never waits for anything: what is due in one
database is handed in there together, to be run with what else waits, and whoever runs it tells how
it ended. A file that is locked keeps nobody's term on another from being renewed.

A term is over by whichever clock says so first: the store's own, by which every other claimant goes;
or the steady time since the last acknowledged renewal was *sent*, which no change of the machine's
clock can move.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from heapq import heapify, heappop, heappush
from itertools import count
from time import monotonic
from typing import Any, Final
from weakref import WeakKeyDictionary, WeakSet, ref

from lash_store._kernel.backend import Handle
from lash_store._kernel.kept import TICK_S, Kept
from lash_store._kernel.posix import in_forked_child
from lash_store._kernel.steady import steady_ms
from lash_store._kernel.threads import TIMER
from lash_store.errors import LashStoreError

_MOST_PASSED_OVER: Final = 64
"""So many notes of what is held no more stay, beside as many as there are terms."""


class _Book:
    """What is kept in one database."""

    def __init__(self) -> None:
        self.kept: set[Kept] = set()
        self.by_token: dict[str, list[Kept]] = {}
        """The same: most tokens are one block's, and blocks of one owner may have one token."""

        self.moved: set[Kept] = set()
        """Those whose clocks are moved by hand: at those the keeper looks each time."""

        self.looks: list[float] = []
        """When the timer looks, on the monotonic clock, the soonest first."""

        self._due: list[tuple[float, int, ref[Kept]]] = []
        """When to look at each of the others, the soonest first; a note that has been followed by another, or is of
        what is held no more, is passed over."""

        self._numbers = count(1)

    def add(self, kept: Kept) -> None:
        self.kept.add(kept)
        if hasattr(kept.clock, "steady_ms"):
            self.moved.add(kept)
        self.by_token.setdefault(kept.fence.token, []).append(kept)

    def discard(self, kept: Kept) -> None:
        if kept not in self.kept:
            return
        self.moved.discard(kept)
        token = kept.fence.token
        same = self.by_token.get(token, [])
        if kept in same:  # an interrupt may have kept it from being added
            same.remove(kept)
        if not same:
            self.by_token.pop(token, None)
        self.kept.discard(kept)  # last: what an interrupt leaves undone is done by the next

    def look_at(self, kept: Kept) -> None:
        """Note when to look at it next."""
        number = next(self._numbers)
        heappush(self._due, (kept.look_at_s(), number, ref(kept)))
        kept.queued = number  # last: an interrupt in between leaves the note that stood before
        if len(self._due) > 2 * len(self.kept) + _MOST_PASSED_OVER:
            left = [each for each in self._due if self._stands(each)]
            heapify(left)
            self._due = left

    def next_s(self) -> float | None:
        """Return when there is one to look at; None if there is none."""
        while self._due and not self._stands(self._due[0]):
            heappop(self._due)
        return self._due[0][0] if self._due else None

    def due(self, by_s: float) -> list[Kept]:
        """Take those that are to be looked at by then, and those that are looked at each time."""
        found = list(self.moved)
        while (at_s := self.next_s()) is not None and at_s <= by_s:
            kept = heappop(self._due)[2]()
            if kept is not None:
                kept.queued = 0
                found.append(kept)
        return found

    def _stands(self, noted: tuple[float, int, ref[Kept]]) -> bool:
        kept = noted[2]()
        return kept is not None and kept.queued == noted[1] and kept in self.kept

    def forget_looks(self, at_s: float) -> None:
        """Those that were due by then have come."""
        while self.looks and self.looks[0] <= at_s:
            heappop(self.looks)

    def of_token(self, token: str) -> list[Kept]:
        """Not by its tokens: an interrupt may have kept it from being there as well."""
        return [each for each in self.kept if each.fence.token == token]

    def others(self, kept: Kept) -> list[Kept]:
        """Return the other blocks that have the very same term."""
        same = self.by_token.get(kept.fence.token, ())
        return [each for each in same if each is not kept and each.holds(kept.fence)]

    def holders(self, fence: Any) -> list[Kept]:
        return [each for each in self.by_token.get(fence.token, ()) if each.holds(fence)]


class Entering:
    """A block that is being entered: what it has claimed, in a transaction that may not be over yet."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.term: Any = None
        self.sent_ms = 0.0
        """Since when that holds, by the steady time."""
        self.is_over = False
        """Whether nobody enters it any more: it was entered, or an interrupt has ended that."""


class Leaving:
    """A term that a block which was thrown away gives back in its own time, which has not come yet."""

    def __init__(self, fence: Any) -> None:
        self.fence = fence
        self.claimed_until_ms: list[int] = []
        """Until when its owner has claimed the very same term by hand since: it is not given back if that was kept."""


class NotEnteredError(LashStoreError):
    """Undoes a claim that another thread does for somebody whom an interrupt has ended meanwhile."""


class Keeper:
    """Who renews; see the head of this module."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._books: dict[str, _Book] = {}
        self._entering: WeakSet[Entering] = WeakSet()
        """Those that have claimed something; an interrupt may leave one here, which lives no longer."""

        self._leaving: list[ref[Leaving]] = []
        """Those that nobody has given back yet; one for which nobody can lives no longer."""

        self._wakes: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()
        """Which databases a clock looks into when it is moved."""

    def keep(self, kept: Kept) -> None:
        """Renew a term from now on."""
        kept.keeper = self
        with self._lock:
            book = self._books.get(kept.handle.key) or self._books.setdefault(
                kept.handle.key, _Book()
            )
            book.add(kept)
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
                if not book.kept and not book.looks:
                    del self._books[kept.handle.key]

    def drop_token(self, key: str, token: str) -> None:
        """Renew no more what one token proves."""
        with self._lock:
            book = self._books.get(key)
            kept = [] if book is None else book.of_token(token)
        for each in kept:
            self.drop(each)

    def claimed(self, entering: Entering, term: Any) -> bool:
        """Note what a block that is being entered has claimed, None for nothing; tell whether it still is."""
        with self._lock:
            if not entering.is_over:
                entering.term = term
                (self._entering.discard if term is None else self._entering.add)(entering)
            return not entering.is_over

    def entered(self, entering: Entering) -> None:
        """Note that it is kept by now, or was not entered."""
        with self._lock:
            entering.is_over = True
            self._entering.discard(entering)

    def leaving(self, fence: Any) -> Leaving:
        """Note that a term is given back later."""
        leaving = Leaving(fence)
        with self._lock:
            self._leaving.append(ref(leaving))
            if len(self._leaving) > _MOST_PASSED_OVER:
                self._leaving = [each for each in self._leaving if each() is not None]
        return leaving

    def claimed_again(self, fence: Any, until_ms: int) -> None:
        """Note that an owner claims the term again that it has already; its token is of one database."""
        if not self._leaving:
            return
        with self._lock:
            there = [
                *self._leaving
            ]  # the collector may come as they are looked through, and leave more
        for each in there:
            leaving = each()
            if leaving is not None and leaving.fence == fence:
                leaving.claimed_until_ms.append(until_ms)

    def is_held(self, key: str, fence: Any) -> bool:
        """Whether a block of this process holds a term, or is being entered with it (K-HOLD-5).

        Asked in the transaction that would release it, it is the truth: claims of it are behind its lock.
        """
        with self._lock:
            entering = any(each.key == key and each.term.fence == fence for each in self._entering)
            return entering or bool(self._holders(key, fence))

    def has(self, key: str, is_it: Callable[[Any], bool]) -> bool:
        """Whether a block of this process holds a term of which `is_it` says, by its fence, that it is the one."""
        with self._lock:
            book = self._books.get(key)
            held = [] if book is None else list(book.kept)
        return any(each.lost is None and is_it(each.fence) for each in held)

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
            book = self._books.get(kept.handle.key)
            others = [] if book is None else book.others(kept)
            for each in others:
                each.end_with(kept)
        for each in others:
            self.look_soon(each)

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
        key = kept.handle.key
        with self._lock:
            book = self._books.get(key)
            if book is not None and kept in book.kept:
                book.look_at(kept)
                self._look_in_time(key, book)

    def _look_in_time(self, key: str, book: _Book) -> None:
        """Have the timer look when there is something to look at, unless it does so by then."""
        at_s = book.next_s()
        if at_s is None or (book.looks and book.looks[0] <= at_s):
            return
        # First: an interrupt in between would leave a look noted that never comes.
        TIMER.after(at_s - monotonic(), lambda: self._tick(key, at_s))
        heappush(book.looks, at_s)

    def _tick(self, key: str, at_s: float) -> None:
        with self._lock:
            book = self._books.get(key)
            if book is None:
                return
            book.forget_looks(at_s)
            if not book.kept:
                if not book.looks:
                    del self._books[key]
                return
        self._look(key)

    def _look(self, key: str) -> None:
        """Ask for what is due in one database, all at once; and see what is over."""
        with self._lock:
            book = self._books.get(key)
            kept = [] if book is None else book.due(monotonic() + TICK_S)
        asked: dict[int, tuple[Handle, list[Any]]] = {}
        for each in kept:
            now_ms = steady_ms(each.clock)
            if now_ms >= each.until_ms:
                each.lose_in_time()
            if each.loop is not None and each.loop.is_closed():
                each.forget_who_waits()  # in that loop, which they would keep
                self.drop(each)
                continue
            if each.lost is not None:
                self.drop(each)
                continue
            call = each.asked(now_ms + min(TICK_S * 1000, each.ttl_ms / 10))
            if call is not None:
                asked.setdefault(id(each.handle), (each.handle, []))[1].append(call)
        for handle, calls in asked.values():
            handle.submit_told(calls)
        for each in kept:
            if each.lost is None:
                self.look_soon(each)
        with self._lock:
            if book is not None:
                self._look_in_time(key, book)

    def forget(self) -> None:
        """Keep nothing of what the parent process holds."""
        inherited = [each for book in self._books.values() for each in book.kept]
        self._lock = threading.RLock()
        self._books, self._entering, self._leaving = {}, WeakSet(), []
        for each in inherited:
            each.leave_to_parent()


KEEPER: Final = Keeper()

in_forked_child(KEEPER.forget)
