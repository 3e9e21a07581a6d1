"""Who of this process waits for one lease, in order: the first looks for all of them (K-HOLD-6).

If each looked whenever the lease may be free, each release would have all of them claim, and all but
one in vain. Who stands first waits for commits, and claims; whoever leaves the line, by whatever way, has the
next one look.
"""

import asyncio
import threading
import weakref
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Final

from lash_store._kernel.posix import in_forked_child
from lash_store._kernel.steady import steady_ms
from lash_store._kernel.threads import Bell
from lash_store.clock import Clock

_LOOK_AGAIN_S: Final = 1.0
"""So often the second looks, by a snapshot, for the first may stand in an event loop that runs no more; the
third half as often, the fourth a third as often, and so on: for those before it may."""

Key = tuple[str, str]
"""What is waited for: in which database, which lease."""


class Place:
    """The place of one who waits. It lives as long as who waits does: what an interrupt unwinds leaves the line."""

    __slots__ = ("__weakref__", "_line", "_wake")

    def __init__(self, line: "deque[weakref.ref[Place]]", wake: Callable[[], None]) -> None:
        self._line, self._wake = line, wake

    @property
    def is_first(self) -> bool:
        """Whether it looks for all of them."""
        first = _first(self._line)
        return first is None or first is self

    @property
    def before(self) -> int:
        """How many stand before it."""
        with _lock:
            places = [each() for each in self._line]
        return places.index(self) if self in places else 0

    def _those_that_left(self) -> "list[weakref.ref[Place]]":
        return [each for each in self._line if each() is self or each() is None]

    def leave(self) -> None:
        """Stand there no more, and let the next one look."""
        was_first = self.is_first
        with _lock:
            for each in self._those_that_left():
                with suppress(ValueError):  # it is gone by itself
                    self._line.remove(each)
        following = _first(self._line)
        if was_first and following is not None:
            following._wake()  # noqa: SLF001 # reason: of the same kind

    def __del__(self) -> None:
        """Leave: whoever waited was interrupted, or thrown away."""
        with suppress(AttributeError):  # it never stood there
            self.leave()


# Reentrant: a signal handler, or the garbage collector, may come to it while its own thread is inside.
_lock = threading.RLock()
_lines: "weakref.WeakValueDictionary[Key, _Line]" = weakref.WeakValueDictionary()


class _Line(deque["weakref.ref[Place]"]):
    """Who waits for one lease; forgotten with the last of them."""


def _first(line: "deque[weakref.ref[Place]]") -> Place | None:
    with _lock:
        return next((place for place in (each() for each in line) if place is not None), None)


def stand(key: Key, wake: Callable[[], None]) -> Place:
    """Stand in line behind all who wait for the same; `wake` is called, on any thread, once it is the first."""
    with _lock:
        line = _lines.get(key)
        if line is None:
            line = _lines[key] = _Line()
        place = Place(line, wake)
        line.append(weakref.ref(place))
    return place


def is_waited_for(key: Key) -> bool:
    """Whether anybody stands in line for it."""
    with _lock:
        line = _lines.get(key)
    return line is not None and _first(line) is not None


class Patience:
    """How long a block waits to be entered: in real time too, where a test moves the clock, or doesn't."""

    def __init__(self, clock: Clock, timeout_ms: int) -> None:
        self._clock = clock
        self._until_ms = steady_ms(clock) + timeout_ms
        self._until_s = monotonic() + timeout_ms / 1000

    def left_ms(self) -> float:
        """Return what is left of it."""
        by_clock_ms = self._until_ms - steady_ms(self._clock)
        return min(by_clock_ms, (self._until_s - monotonic()) * 1000)


class _Standing:
    """Waiting in line, of whatever kind."""

    place: Place

    def __init__(self) -> None:
        self._waits = 0

    def _looks(self) -> bool:
        """Whether, behind others, it is to look for itself."""
        self._waits += 1
        before = self.place.before
        return before > 0 and self._waits % before == 0


class InThread(_Standing):
    """Waiting in line, of a thread."""

    def __init__(self, key: Key) -> None:
        super().__init__()
        self._bell = Bell()
        self.place = stand(key, self._bell.ring)

    def until_first(self, left_ms: Callable[[], float], is_free: Callable[[], object]) -> None:
        """Wait to be the first, for as long as is left; or until a look has found it free all the same."""
        while not self.place.is_first and (ms := left_ms()) > 0:
            self._bell.wait(min(ms / 1000, _LOOK_AGAIN_S))
            if self._looks() and is_free():
                return


class InLoop(_Standing):
    """Waiting in line, of a task of an event loop."""

    def __init__(self, key: Key) -> None:
        super().__init__()
        self._woken = asyncio.Event()
        self.place = stand(key, partial(_set_in, asyncio.get_running_loop(), self._woken))

    async def until_first(
        self, left_ms: Callable[[], float], is_free: Callable[[], Awaitable[object]]
    ) -> None:
        """Wait to be the first, for as long as is left; or until a look has found it free all the same."""
        while not self.place.is_first and (ms := left_ms()) > 0:
            self._woken.clear()
            if not self.place.is_first:
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(ms / 1000, _LOOK_AGAIN_S)):
                        await self._woken.wait()
            if self._looks() and await is_free():
                return


def _set_in(loop: asyncio.AbstractEventLoop, woken: asyncio.Event) -> None:
    with suppress(RuntimeError):  # the loop has been closed in the meantime
        loop.call_soon_threadsafe(woken.set)


@in_forked_child
def _forget() -> None:
    """Nobody of the parent's waits here."""
    global _lock  # noqa: PLW0603 # reason: the thread that held it is the parent's
    _lock = threading.RLock()
    _lines.clear()
