"""One call on a thread of its own that is stopped at its points; see ``interleaving``."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

from lash_store.testing.points import at_points, statements_as_points

HANGS_S: Final = 20.0
"""After so many seconds a call is taken to hang."""


class Call:
    """One call on a thread of its own, which goes on when it is told to."""

    stops_at_statements = True

    def __init__(self, function: Callable[[], Any], stops_at: Callable[[str], bool]) -> None:
        self._function = function
        self._stops_at = stops_at
        self._go = threading.Semaphore(0)
        self._arriving = threading.Lock()  # of several threads of the call one stands at a point
        self._changed = threading.Condition()
        self.at: str | None = None
        """The point at which it is stopped."""

        self.passed: list[str] = []
        self.is_over = self.is_async = False
        self.result: Any = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin, up to its first point."""
        self._thread.start()

    def arrive(self, name: str) -> None:
        """Come to a point: wait there, if it is one to stop at."""
        with self._arriving:
            self.passed.append(name)
            if not self._stops_at(name):
                return
            with self._changed:
                self.at = name
                self._changed.notify_all()
            self._go.acquire()

    def go_on(self) -> None:
        """Let it go on from where it is stopped."""
        self.at = None
        self._go.release()

    def let_go(self) -> None:
        """Let it go on to its end: it stops nowhere any more."""
        self._stops_at = lambda _: False
        self.settles(HANGS_S)
        if self.at is not None:
            self.go_on()

    def settles(self, timeout_s: float) -> bool:
        """Wait until it is stopped at a point, or over; False if it does not come to either."""
        with self._changed:
            return self._changed.wait_for(lambda: self.at is not None or self.is_over, timeout_s)

    def join(self) -> None:
        """Wait for its end."""
        self._thread.join(HANGS_S)
        if self._thread.is_alive():
            raise RuntimeError(f"a call hangs behind {self.passed}")

    def _run(self) -> None:
        try:
            with at_points(self):
                result = self._function()
                self.is_async = inspect.iscoroutine(result)
                self.result = asyncio.run(result) if self.is_async else result
        except BaseException as error:  # noqa: BLE001 # reason: it is the call's outcome
            self.error = error
        with self._changed:
            self.is_over = True
            self._changed.notify_all()

    @property
    def outcome(self) -> Any:
        """What it gave, or the error that it raised."""
        return self.result if self.error is None else self.error


class Parked:
    """A call that is stopped at a point, for as long as the block lasts or until ``resume()``.

    `at` is a point's name ("begin", "commit", "select", "insert", "update", …, or your own), `nth` which of
    them. ``with Parked(lambda: store.claim_lease(…), at="commit") as parked:`` runs the call on a
    thread of its own; inside the block it stands there. Raises RuntimeError if it never gets there, and
    as the block is left the call's own error, unless ``resume()`` or the block has raised one.
    """

    def __init__(self, function: Callable[[], Any], *, at: str, nth: int = 1) -> None:
        self._at, self._nth, self._met = at, nth, 0
        self._call = Call(function, self._stops)
        self._observed = statements_as_points()
        self._is_told = False

    def _stops(self, name: str) -> bool:
        self._met += name == self._at
        return name == self._at and self._met == self._nth

    def __enter__(self) -> Self:
        self._observed.__enter__()
        self._call.start()
        if not self._call.settles(HANGS_S) or self._call.is_over:
            self._observed.__exit__(None, None, None)
            never = RuntimeError(f"the call never came to {self._at!r}: {self._call.passed}")
            raise never from self._call.error
        return self

    def resume(self) -> Any:
        """Let the call go on to its end, and return what it gives, or raise its error."""
        if self._call.at is not None:
            self._call.go_on()
        self._call.join()
        self._is_told = True
        if self._call.error is not None:
            raise self._call.error
        return self._call.result

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._call.at is not None:
                self._call.go_on()
            self._call.join()
        finally:
            self._observed.__exit__(None, None, None)
        if error is None and not self._is_told and self._call.error is not None:
            raise self._call.error
