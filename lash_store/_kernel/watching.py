"""Waiting for a commit, without asking the database again and again.

A writer of this process announces its commits, to every open store of the same file. For
those of other processes one thread per open database, which runs only while somebody waits,
asks SQLite for its *data version*: a number that changes when another connection has
committed. That reads no data, begins no transaction, and takes a few microseconds; so a
hundred waiters cost as little as one. A waiter is told that something may have changed, and
looks for itself.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from lash_store.errors import LashStoreError, StoreClosedError

POLL_S: Final = 0.02
"""How often the data version is read: a commit of another process is seen after 20 ms at most."""


class Watch:
    """The waiters on one open database."""

    def __init__(self, key: str, read_version: Callable[[], object] | None) -> None:
        self._key = key
        self._read_version = read_version
        self._lock = threading.Lock()
        self._waiters: list[Callable[[], None]] = []
        self._stop = threading.Event()
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
            if not self._waiters:
                self._start()
            self._waiters.append(notify)

    def unsubscribe(self, notify: Callable[[], None]) -> None:
        """Call `notify` no more; harmless if it was not subscribed."""
        with self._lock:
            if notify not in self._waiters:
                return
            self._waiters.remove(notify)
            if not self._waiters:
                self._stop.set()
                _forget(self)

    def notify(self) -> None:
        """Tell every waiter to look."""
        with self._lock:
            waiters = list(self._waiters)
        for notify in waiters:
            notify()

    def _start(self) -> None:
        stop = self._stop = threading.Event()
        if self._read_version is not None:
            # Now, not in the thread: what is committed before it first looks must be noticed.
            self._seen = self._read_version()
            poll = threading.Thread(
                target=self._poll,
                args=(self._read_version, stop),
                name="lash-store-watch",
                daemon=True,
            )
            poll.start()
        with _registry_lock:
            watched.setdefault(self._key, []).append(self)

    def _poll(self, read_version: Callable[[], object], stop: threading.Event) -> None:
        while not stop.wait(POLL_S):
            try:
                version = read_version()
            except StoreClosedError:
                self.notify()  # each waiter finds out for itself
                return
            except LashStoreError:
                self.notify()  # the same; but the trouble may pass
                continue
            if version != self._seen:
                self._seen = version
                self.notify()


watched: Final[dict[str, list[Watch]]] = {}
"""The watches that somebody waits on, by database; empty while nobody waits anywhere."""

_registry_lock = threading.Lock()


def announce(key: str) -> None:
    """Tell those who wait on a database, through whichever store, that it may have changed."""
    with _registry_lock:
        watches = list(watched.get(key, ()))
    for watch in watches:
        watch.notify()


def forget_all() -> None:
    """Forget every waiter: after a fork they are threads of the parent."""
    global _registry_lock  # noqa: PLW0603 # reason: the thread that held it may not exist in the child
    _registry_lock = threading.Lock()
    watched.clear()


def _forget(watch: Watch) -> None:
    with _registry_lock:
        watches = watched.get(watch._key, [])  # noqa: SLF001 # reason: of the same module
        if watch in watches:
            watches.remove(watch)
        if not watches:
            watched.pop(watch._key, None)  # noqa: SLF001 # reason: the same
