"""Waiting for a commit, without asking the database again and again.

A writer of this process says what its commit has touched, and only those are told whom that concerns:
whose last look went over it, or who wait for just that. For commits of other processes somebody
looks, while there are waiters, at SQLite's *data version* on the connection that writes: a number
that changes when another connection has committed. That reads no data, begins no transaction, and
takes a few microseconds. What they have touched nobody knows: those who can say in a moment whether
there is anything for them are asked in one snapshot, all together, and the others are told.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from lash_store._kernel.posix import in_forked_child
from lash_store._kernel.threads import TIMER, WORKS, Pool
from lash_store.errors import LashStoreError, StoreClosedError

Concern = tuple[str, str, str | None]
"""What a commit may touch: a kind of store, a session or nothing, and of that all (None) or one thing."""

Version = tuple[str, object]
"""Who has read the data version, and what it was."""

ANYTHING: Final[Concern] = ("", "", None)
"""What a consumer's own statement may touch."""

POLL_S: Final = 0.02
"""How often the data version is read: a commit of another process is seen after 20 ms at most."""

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


class Watch:
    """The waiters on one open database."""

    def __init__(
        self, read_version: Callable[[], Version | None] | None, polls_on: Pool | None = None
    ) -> None:
        self._polls_on = polls_on
        """Whose threads read it, where that may wait; else the timer does."""

        self._read_version = read_version
        """Reads the data version; it gives None if that can't be read just now without waiting."""

        self._lock = threading.RLock()
        self.waiters: set[Waiter] = set()
        self._by_concern: dict[Concern, set[Waiter]] = {}
        self._ask: Callable[[list[Waiter]], None] | None = None
        self._is_asking = False
        self._is_polled = False
        self._seen: dict[str, object] = {}
        """The data version by who has read it: a number is one connection's own."""

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
                # Now, not on the timer: what is committed before that first looks must be noticed.
                self._seen = {}
                version = self._read_version()
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
            for concern in waiter.concerns:
                told = self._by_concern.get(concern, set())
                told.discard(waiter)
                if not told:
                    self._by_concern.pop(concern, None)
            waiter.concerns = frozenset()

    def notify(self) -> None:
        """Tell every waiter to look."""
        with self._lock:
            waiters = list(self.waiters)
        for waiter in waiters:
            waiter.notify()

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
        with self._lock:
            probed = [each for each in self.waiters if each.probe is not None]
            others = [each for each in self.waiters if each.probe is None]
            ask, is_asking = self._ask, self._is_asking
            self._is_asking = bool(probed)
        for waiter in others:
            waiter.notify()
        if probed and not is_asking and ask is not None:
            WORKS.submit(lambda: self._ask_all(ask))

    def _ask_all(self, ask: Callable[[list[Waiter]], None]) -> None:
        with self._lock:
            self._is_asking = (
                False  # before the snapshot: what is committed later is asked for again
            )
            probed = [each for each in self.waiters if each.probe is not None]
        ask(probed)

    def _poll_later(self) -> None:
        TIMER.after(max(POLL_S, _POLL_OF_MANY_S * len(_polled)), self._poll)

    def _poll(self) -> None:
        with self._lock:
            if not self.waiters:
                self._is_polled = False
                _polled.discard(id(self))
                return
        if self._polls_on is None:
            self._look_and_again()
        else:
            self._polls_on.submit(self._look_and_again)

    def _look_and_again(self) -> None:
        try:
            self._look()
        finally:
            if self._is_polled:
                self._poll_later()

    def _look(self) -> None:
        assert self._read_version is not None
        try:
            version = self._read_version()
        except StoreClosedError:
            with self._lock:
                self._is_polled = False
                _polled.discard(id(self))
            self.notify()  # each waiter finds out for itself
            return
        except LashStoreError:
            self.notify()  # the same; but the trouble may pass
        else:
            if version is not None:
                self.see(version)


in_forked_child(_polled.clear)
