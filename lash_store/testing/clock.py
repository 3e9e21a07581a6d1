"""Time and ids that a test owns."""

from collections.abc import Callable

from lash_store._kernel.checks import check_count


class ManualClock:
    """A clock that stands still until the test moves it, and never goes backwards.

    What is held by it is renewed, and over, by its time alone: moving it wakes the keeper.
    """

    def __init__(self, now_ms: int = 1_000_000) -> None:
        self._now_ms = check_count("now_ms", now_ms)
        self._moved: list[Callable[[], None]] = []

    def now_ms(self) -> int:
        """Return the time that was last set, in milliseconds since the epoch."""
        return self._now_ms

    def advance(self, by_ms: int) -> int:
        """Let `by_ms` milliseconds pass; return the new time."""
        self._now_ms = check_count("now_ms", self._now_ms + check_count("by_ms", by_ms))
        for moved in list(self._moved):
            moved()
        return self._now_ms

    def steady_ms(self) -> int:
        """Return the same as the time that passes whatever becomes of the clock."""
        return self._now_ms

    def when_moved(self, moved: Callable[[], None]) -> None:
        """Call `moved` whenever the time is moved, on the thread that moves it."""
        self._moved.append(moved)

    def advance_to(self, now_ms: int) -> int:
        """Move to `now_ms`; a time that has passed already is a ValueError."""
        return self.advance(now_ms - self._now_ms)

    def __repr__(self) -> str:
        return f"ManualClock({self._now_ms})"


class SequentialIds:
    """Tokens that count up, the same in every run: ``token-1``, then ``token-2``."""

    def __init__(self, prefix: str = "token") -> None:
        self._prefix = prefix
        self._count = 0

    def new_token(self) -> str:
        """Return the next token."""
        self._count += 1
        return f"{self._prefix}-{self._count}"
