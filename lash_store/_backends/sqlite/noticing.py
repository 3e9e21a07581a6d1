"""Being told by the system that a file was written to.

Linux tells who asks (inotify) at once; elsewhere, and where it has no watch left,
somebody has to look by interval. No descriptor of the file is opened for it: closing one would drop
SQLite's locks. One thread for the process sleeps until it is told.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from lash_store._kernel.posix import CLOSE_ON_EXEC, in_forked_child
from lash_store._kernel.threads import do, start_thread

Told = Callable[[], None]

_MODIFIED: Final = 0x2
"""IN_MODIFY: somebody has written to it."""

_HEAD: Final = 16
"""Of each event: what is watched, what happened, a cookie, the length of a name; four bytes each."""

_LOST: Final = -1

_GAP_S: Final = 0.001
"""How long the thread rests when it has told: a busy file takes a thousand looks a second at most."""


class Notices:
    """Who is told of which files."""

    def __init__(self) -> None:
        self._descriptor: int | None = None
        self.renew()

    def renew(self) -> None:
        """Begin anew: a child has none of its parent's threads."""
        if self._descriptor is not None:
            os.close(self._descriptor)  # the parent's own is another
        # Reentrant: a signal handler may come to it while its own thread is inside.
        self._lock = threading.RLock()
        self._told: dict[int, set[Told]] = {}
        self._descriptor = None
        self._is_impossible = False

    def watch(self, path: str, told: Told) -> int | None:
        """Call `told`, from a thread of the library's, whenever the file is written to.

        It must not wait for anything. Returns a number for :meth:`forget`, the same for the same
        file; None if the system can't do that, or the file is not there.
        """
        with self._lock:
            if self._is_impossible or not (self._descriptor is not None or self._begin()):
                return None
            assert _libc is not None
            number: int = _libc.inotify_add_watch(self._descriptor, os.fsencode(path), _MODIFIED)
            if number < 0:
                return None
            self._told.setdefault(number, set()).add(told)
            return number

    def forget(self, number: int, told: Told) -> None:
        """Don't call `told` any more for that file."""
        with self._lock:
            those = self._told.get(number)
            if those is None:
                return
            those.discard(told)
            if not those:
                del self._told[number]
                assert _libc is not None
                _libc.inotify_rm_watch(self._descriptor, number)

    def _begin(self) -> bool:
        descriptor = -1
        if _libc is not None and not _threads_are_greenlets():
            descriptor = _libc.inotify_init1(CLOSE_ON_EXEC)
        if descriptor < 0:
            self._is_impossible = True
            return False
        if not start_thread("lash-store-notices", lambda: self._run(descriptor)):
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def _run(self, descriptor: int) -> None:
        while True:
            events = os.read(descriptor, 65_536)
            with self._lock:
                # One of no watch says that there were more than the system has kept.
                watched = self._told if _LOST in (found := _watched(events)) else found
                told = {each for number in watched for each in self._told.get(number, ())}
            for each in told:
                do(each)
            time.sleep(_GAP_S)


def _threads_are_greenlets() -> bool:
    """Whether gevent has taken the threads' place: who waits for the system would keep them all waiting."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def _watched(events: bytes) -> set[int]:
    """Return which watches the events are about."""
    found, at = set(), 0
    while at < len(events):
        number, _, _, length = memoryview(events)[at : at + _HEAD].cast("i")
        found.add(number)
        at += _HEAD + length
    return found


def _load() -> ctypes.CDLL | None:
    """Return the C library if it can do this."""
    with suppress(
        OSError, AttributeError, TypeError
    ):  # TypeError: Windows has no library of its own
        library = ctypes.CDLL(None)
        _ = library.inotify_init1, library.inotify_add_watch, library.inotify_rm_watch
        return library
    return None


_libc: Final = _load()
NOTICES: Final = Notices()
in_forked_child(NOTICES.renew)


class FileNotices:
    """The notices of one file, for ``watching.Watch``."""

    def __init__(self, path: str) -> None:
        self._path = path

    def watch(self, told: Told) -> int | None:
        """Call `told` whenever the file is written to; see :meth:`Notices.watch`."""
        return NOTICES.watch(self._path, told)

    def forget(self, number: int, told: Told) -> None:
        """Call it no more."""
        NOTICES.forget(number, told)
