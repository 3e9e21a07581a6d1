"""The time that passes, whatever becomes of the machine's clock."""

from collections.abc import Callable
from time import monotonic
from typing import Any, Protocol, runtime_checkable

from lash_store.clock import Clock


@runtime_checkable
class MovedClock(Protocol):
    """A clock that somebody moves, a test: time does not pass by itself."""

    def steady_ms(self) -> float:
        """Return a time in milliseconds that passes whatever the clock is set to."""

    def when_moved(self, moved: Callable[[], None], /) -> None:
        """Call `moved` whenever the clock is moved, on the thread that moves it."""


def asked_ms(tx: Any) -> float:
    """Return a steady time before which a transaction has not read its clock.

    What it has claimed holds from then on: not from when the claim was sent, which may have waited for a
    lock since. A server's clock is read before its answer comes, nobody knows how long.
    """
    clock, transaction = tx.context.clock, tx.transaction
    asked_s = getattr(transaction, "asked_s", None)
    if asked_s is not None and not isinstance(clock, MovedClock):
        return float(asked_s) * 1000
    now_ms = steady_ms(clock)
    passed_ms: int = transaction.now_ms(clock) - tx.now_ms
    return now_ms - max(0, passed_ms)


def steady_ms(clock: Clock) -> float:
    """Return a time in milliseconds that no change of the machine's clock moves.

    A clock that a test moves is its own.
    """
    own: Callable[[], float] | None = getattr(clock, "steady_ms", None)
    return monotonic() * 1000 if own is None else own()
