"""The time that passes, whatever becomes of the machine's clock."""

from collections.abc import Callable
from time import monotonic
from typing import Protocol, runtime_checkable

from lash_store.clock import Clock


@runtime_checkable
class MovedClock(Protocol):
    """A clock that somebody moves, a test: time does not pass by itself."""

    def steady_ms(self) -> float:
        """Return a time in milliseconds that passes whatever the clock is set to."""

    def when_moved(self, moved: Callable[[], None], /) -> None:
        """Call `moved` whenever the clock is moved, on the thread that moves it."""


def steady_ms(clock: Clock) -> float:
    """Return a time in milliseconds that no change of the machine's clock moves.

    A clock that a test moves is its own.
    """
    own: Callable[[], float] | None = getattr(clock, "steady_ms", None)
    return monotonic() * 1000 if own is None else own()
