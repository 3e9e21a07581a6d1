"""Waiting for a commit, without asking the database again and again.

A writer of this process announces its commits. For those of other processes the timer asks
SQLite, while somebody waits, for its *data version*: a number that changes when another
connection has committed. That reads no data, begins no transaction, and takes a few microseconds;
so a hundred waiters on a file cost as little as one. A waiter is told that something may have
changed, and looks for itself.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from lash_store._kernel.threads import TIMER
from lash_store.errors import LashStoreError, StoreClosedError

_POLL_S: Final = 0.02
"""How often the data version is read: a commit of another process is seen after 20 ms at most."""

_POLL_OF_MANY_S: Final = 0.00004
"""Of many databases that are waited on, each is looked at so much later for every other."""

_polled: Final[set[int]] = set()
"""The watches that the timer looks after, by id."""


class Watch:
    """The waiters on one open database."""

    def __init__(self, read_version: Callable[[], object] | None) -> None:
        self._read_version = read_version
        self._lock = threading.RLock()
        self.waiters: list[Callable[[], None]] = []
        self._is_polled = False
        self._seen: object = None

    @contextmanager
    def subscribed(self, notify: Callable[[], None]) -> Iterator[None]:
        """Call `notify`, from any thread, whenever something may have been committed."""
        try:
            self.subscribe(notify)
            yield
        finally:
            self.unsubscribe(notify)

    def subscribe(self, notify: Callable[[], None]) -> None:
        """Call `notify` from now on; whatever is committed after this returns is announced."""
        with self._lock:
            if not self.waiters and self._read_version is not None:
                # Now, not on the timer: what is committed before that first looks must be noticed.
                self._seen = self._read_version()
            self.waiters.append(notify)
            is_polled, self._is_polled = self._is_polled, self._read_version is not None
        if self._is_polled and not is_polled:
            _polled.add(id(self))
            self._poll_later()

    def unsubscribe(self, notify: Callable[[], None]) -> None:
        """Call `notify` no more; harmless if it was not subscribed."""
        with self._lock:
            if notify in self.waiters:
                self.waiters.remove(notify)

    def notify(self) -> None:
        """Tell every waiter to look."""
        with self._lock:
            waiters = list(self.waiters)
        for notify in waiters:
            notify()

    def _poll_later(self) -> None:
        TIMER.after(max(_POLL_S, _POLL_OF_MANY_S * len(_polled)), self._poll)

    def _poll(self) -> None:
        with self._lock:
            if not self.waiters:
                self._is_polled = False
                _polled.discard(id(self))
                return
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
            if version != self._seen:
                self._seen = version
                self.notify()
        self._poll_later()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_polled.clear)
