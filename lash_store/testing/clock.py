"""Time and ids that a test owns."""

from collections.abc import Callable

from lash_store._kernel.checks import check_count, check_kind
from lash_store._kernel.steady import MovedClock
from lash_store.clock import Clock


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
    """Tokens that count up, the same in every run: ``token-1``, then ``token-2``.

    One for each database, for as long as the test has it: a second one, of a store that is opened anew or as
    another process, begins at 1 again, and needs another `prefix`.
    """

    def __init__(self, prefix: str = "token") -> None:
        self._prefix = prefix
        self._count = 0

    def new_token(self) -> str:
        """Return the next token."""
        self._count += 1
        return f"{self._prefix}-{self._count}"


class SkewedClock:
    """Another machine's clock: so many milliseconds ahead of the one that it is made of, or behind.

    It is moved with that one, if a test moves that; the time that passes is the same on every machine.
    """

    def __init__(self, of: Clock, by_ms: int) -> None:
        self._of = of
        check_kind("by_ms", by_ms, int)
        self.by_ms = by_ms
        if isinstance(of, MovedClock):  # or time passes by itself
            self.steady_ms, self.when_moved = of.steady_ms, of.when_moved

    def now_ms(self) -> int:
        """Return the time that this machine takes it for."""
        return check_count("now_ms", self._of.now_ms() + self.by_ms)

    def __repr__(self) -> str:
        return f"SkewedClock({self._of!r}, {self.by_ms})"


class JumpingClock:
    """A machine's clock that is set: what it shows jumps, the time that passes does not.

    ``clock.advance(ms)`` lets time pass; ``clock.jump(ms)`` sets the clock, forward or back.
    """

    def __init__(self, now_ms: int = 1_000_000_000_000) -> None:
        self._steady = ManualClock(now_ms)
        self._off_ms = 0

    def now_ms(self) -> int:
        """Return what the clock shows."""
        return check_count("now_ms", self._steady.now_ms() + self._off_ms)

    def steady_ms(self) -> int:
        """Return the time that passes whatever becomes of the clock."""
        return self._steady.now_ms()

    def advance(self, by_ms: int) -> int:
        """Let `by_ms` milliseconds pass; return what the clock shows then."""
        check_count("now_ms", self.now_ms() + check_count("by_ms", by_ms))  # or it would show none
        self._steady.advance(by_ms)
        return self.now_ms()

    def jump(self, by_ms: int) -> int:
        """Set the clock by so much, forward or, below 0, back; return what it shows then."""
        check_kind("by_ms", by_ms, int)
        check_count("now_ms", self.now_ms() + by_ms)  # first: a refusal moves nothing
        self._off_ms += by_ms
        self._steady.advance(0)  # which wakes whoever goes by it
        return self.now_ms()

    def when_moved(self, moved: Callable[[], None]) -> None:
        """Call `moved` whenever the clock is moved or set, on the thread that does it."""
        self._steady.when_moved(moved)

    def __repr__(self) -> str:
        return f"JumpingClock({self.now_ms()})"
