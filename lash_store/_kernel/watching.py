"""Waiting for a commit, without asking the database again and again.

A writer of this process says what its commit has touched, and only those are told whom that concerns:
whose last look went over it, or who wait for just that. For commits of other processes somebody
looks, while there are waiters, at SQLite's *data version* on the connection that writes: a number
that changes when another connection has committed. That reads no data, begins no transaction, and
takes a few microseconds. When to look the system says, where it tells who writes to a file; else an
interval, which is short while others commit. What they have touched nobody knows: those who can say in
a moment whether there is anything for them are asked in one snapshot, all together, and the others are
told.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, Final, Protocol

from lash_store._kernel.posix import in_forked_child
from lash_store._kernel.threads import READS, TIMER, Pool
from lash_store.errors import LashStoreError, StoreClosedError

Concern = tuple[str, str, str | None]
"""What a commit may touch: a kind of store, a session or nothing, and of that all (None) or one thing."""

Version = tuple[str, object]
"""Who has read the data version, and what it was."""

ANYTHING: Final[Concern] = ("", "", None)
"""What a consumer's own statement may touch."""

POLL_S: Final = 0.02
"""How often the data version is read while nobody else commits: one is seen after 20 ms at most."""

SOON_S: Final = 0.002
"""How often it is read while others do."""

_LIVELY_S: Final = 1.0
"""For how long others are taken to commit still."""

_RARELY_S: Final = 0.1
"""How often it is read where the system says when to, in case that it does not."""

_MISSES: Final = 3
"""How many commits the system may leave out, before it is relied on no more."""

_POLL_OF_MANY_S: Final = 0.00004
"""Of many databases that are waited on, each is looked at so much later for every other."""

_polled: Final[set[int]] = set()
"""The watches that the timer looks after, by id."""


class Waiter:
    """Who waits for commits on one database, and for what."""

    __slots__ = ("concerns", "notify", "probe")

    def __init__(
        self, notify: Callable[[], None], probe: Callable[[Any], bool] | None = None
    ) -> None:
        self.notify = notify
        """Called, from any thread, when it has to look."""

        self.probe = probe
        """Tells, on a snapshot of any thread, whether there may be something; None if it has to look."""

        self.concerns: frozenset[Concern] = frozenset()


class Teller(Protocol):
    """Who says that a database was written to; ``noticing.Notices`` of one file."""

    def watch(self, told: Callable[[], None]) -> int | None:
        """Call `told` each time; return a number for :meth:`forget`, None if that can't be done."""

    def forget(self, number: int, told: Callable[[], None]) -> None:
        """Call it no more."""


class Watch:
    """The waiters on one open database."""

    def __init__(
        self,
        read_version: Callable[[], Version | None] | None,
        polls_on: Pool | None = None,
        teller: Teller | None = None,
    ) -> None:
        self._polls_on = polls_on
        """Whose threads read it, where that may wait; else the timer does."""

        self._teller = teller
        self._told_by: int | None = None
        """The number under which the teller tells it."""

        self._is_due = False
        """Whether the timer will look, since that could not be done at once."""

        self._missed = 0
        """How many commits were seen by interval since one was that was told."""

        self._changed_s = 0.0
        """When somebody else was seen to have committed, on the monotonic clock."""

        self._read_version = read_version
        """Reads the data version; it gives None if that can't be read just now without waiting."""

        self._lock = threading.RLock()
        self.waiters: set[Waiter] = set()
        self.sleepers: set[Callable[[], object]] = set()
        self._by_concern: dict[Concern, set[Waiter]] = {}
        self._ask: Callable[[list[Waiter]], None] | None = None
        self._is_asking = False
        self._is_polled = False
        self._seen: dict[str, object] = {}
        """The data version by who has read it: a number is one connection's own."""

    @contextmanager
    def sleeping(self, notify: Callable[[], object]) -> Iterator[None]:
        """Call `notify` when a store is closed, too: for who waits for nothing else, and asks for no looks."""
        with self._lock:
            self.sleepers.add(notify)
        try:
            yield
        finally:
            with self._lock:
                self.sleepers.discard(notify)

    @contextmanager
    def subscribed(self, waiter: Waiter, concerns: Iterable[Concern] = ()) -> Iterator[None]:
        """Tell `waiter` whenever something may have been committed that concerns it."""
        try:
            self.subscribe(waiter, concerns)
            yield
        finally:
            self.unsubscribe(waiter)

    def subscribe(
        self,
        waiter: Waiter,
        concerns: Iterable[Concern] = (),
        ask: Callable[[list[Waiter]], None] | None = None,
    ) -> None:
        """Tell `waiter` from now on; `ask` asks several, each of which has a probe, in one snapshot."""
        with self._lock:
            if not self.waiters and self._read_version is not None:
                self._be_told()  # before it is read, or what is committed in between is not told
                # Now, not on the timer: what is committed before that first looks must be noticed.
                # Where reading may wait for a network, the first look by interval tells all waiters:
                # the commits of this process need the lock that is held here.
                self._seen = {}
                version = self._read_version() if self._polls_on is None else None
                if version is not None:
                    self._seen[version[0]] = version[1]
            self.waiters.add(waiter)
            self._ask = ask or self._ask
            self.widen(waiter, concerns)
            is_polled, self._is_polled = self._is_polled, self._read_version is not None
        if self._is_polled and not is_polled:
            _polled.add(id(self))
            self._poll_later()

    def widen(self, waiter: Waiter, concerns: Iterable[Concern]) -> bool:
        """Tell `waiter` of these as well; whether there is one that it was not told of before."""
        new = frozenset(concerns) - waiter.concerns
        if not new:
            return False
        with self._lock:
            if waiter in self.waiters:
                waiter.concerns |= new
                for concern in new:
                    self._by_concern.setdefault(concern, set()).add(waiter)
        return True

    def unsubscribe(self, waiter: Waiter) -> None:
        """Tell it no more; harmless if it was not told."""
        with self._lock:
            self.waiters.discard(waiter)
            if not self.waiters:
                self._ask = None  # which is a store's own: one that is dropped would stay
            self._forget_concerns(waiter)
            waiter.concerns = frozenset()

    def _forget_concerns(self, waiter: Waiter) -> None:
        for concern in waiter.concerns:
            told = self._by_concern.get(concern, set())
            told.discard(waiter)
            if not told:
                self._by_concern.pop(concern, None)

    def notify(self) -> None:
        """Tell every waiter to look."""
        with self._lock:
            waiters = list(self.waiters)
        for waiter in waiters:
            waiter.notify()

    def notify_of_end(self) -> None:
        """Tell everybody, those who sleep as well, that a store is closed: each finds out whether it is its own."""
        with self._lock:
            sleepers = list(self.sleepers)
        self.notify()
        for each in sleepers:
            each()

    def announce(self, touched: Iterable[Concern]) -> None:
        """Tell those whom a commit of this process concerns."""
        told = set(touched)
        if ANYTHING in told:
            self.notify()
            return
        told.add(ANYTHING)  # who has looked at anything is concerned by everything
        with self._lock:
            waiters = {each for concern in told for each in self._by_concern.get(concern, ())}
        for waiter in waiters:
            waiter.notify()

    def see(self, version: Version) -> None:
        """Tell everybody to look if the data version has changed: somebody else has committed."""
        who, number = version
        if self._seen.get(who) == number:
            return
        self._seen[who] = number
        self._changed_s = monotonic()
        with self._lock:
            probed = self._probed()
            others = self.waiters.difference(probed)
            ask, is_asking = self._ask, self._is_asking
            self._is_asking = bool(probed)
        for waiter in others:
            waiter.notify()
        if probed and not is_asking and ask is not None:
            READS.submit(lambda: self._ask_all(ask))

    def _ask_all(self, ask: Callable[[list[Waiter]], None]) -> None:
        with self._lock:
            self._is_asking = (
                False  # before the snapshot: what is committed later is asked for again
            )
            probed = self._probed()
        ask(probed)

    def _probed(self) -> list[Waiter]:
        return [each for each in self.waiters if each.probe is not None]

    def _be_told(self) -> None:
        """Ask to be told of writes, once more: another file may stand in the place of the first."""
        if self._teller is None or self._missed >= _MISSES:
            return
        before, self._told_by = self._told_by, self._teller.watch(self._look_now)
        if before is not None and before != self._told_by:
            self._teller.forget(before, self._look_now)

    def _be_told_no_more(self) -> None:
        if self._teller is not None and self._told_by is not None:
            self._teller.forget(self._told_by, self._look_now)
            self._told_by = None

    def _poll_later(self) -> None:
        if self._told_by is not None:
            interval_s = _RARELY_S
        elif self._polls_on is None and monotonic() - self._changed_s < _LIVELY_S:
            interval_s = SOON_S
        else:
            interval_s = POLL_S
        TIMER.after(max(interval_s, _POLL_OF_MANY_S * len(_polled)), self._poll)

    def _poll(self) -> None:
        with self._lock:
            if not self.waiters:
                self._stop()
                return
            self._be_told()
        if self._polls_on is None:
            self._look_and_again()
        else:
            self._polls_on.submit(self._look_and_again)

    def _stop(self) -> None:
        self._is_polled = False
        _polled.discard(id(self))
        self._be_told_no_more()

    def _look_and_again(self) -> None:
        before_s = self._changed_s
        try:
            self._look()
        finally:
            if self._told_by is not None and self._changed_s != before_s:
                self._missed += 1
                if self._missed >= _MISSES:
                    self._be_told_no_more()
            if self._is_polled:
                self._poll_later()

    def _look_now(self) -> None:
        """Look, told that somebody has written."""
        if not self.waiters:
            return
        before_s = self._changed_s
        if self._look():
            self._missed = 0 if self._changed_s != before_s else self._missed
        elif not self._is_due:
            self._is_due = True  # whoever has the turn may have no time for it
            TIMER.after(SOON_S, self._look_again)

    def _look_again(self) -> None:
        self._is_due = False
        self._look_now()

    def _look(self) -> bool:
        """Read the version, and tell everybody if it is another; False if it could not be read."""
        assert self._read_version is not None
        try:
            version = self._read_version()
        except StoreClosedError:
            with self._lock:
                self._stop()
            self.notify_of_end()  # each waiter finds out for itself
        except LashStoreError:
            self.notify()  # the same; but the trouble may pass
        else:
            if version is None:
                return False
            self.see(version)
        return True


in_forked_child(_polled.clear)
