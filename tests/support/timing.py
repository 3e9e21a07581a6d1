"""What takes no longer than it may: the machine may stall in one try, a fault is in each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import monotonic

TRIES = 4


def within(limit_s: float, act: Callable[[int], object]) -> bool:
    """Tell whether one of a few tries, which are given their numbers, ends in time."""
    for number in range(TRIES):
        started_s = monotonic()
        act(number)
        if monotonic() - started_s < limit_s:
            return True
    return False


async def awaited_within(limit_s: float, act: Callable[[], Awaitable[object]]) -> bool:
    """Tell whether one of a few tries ends in time, on this loop."""
    for _ in range(TRIES):
        started_s = monotonic()
        await act()
        if monotonic() - started_s < limit_s:
            return True
    return False
