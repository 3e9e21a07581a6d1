"""One term that is kept: as it was last acknowledged, when it is to be renewed, and how it was lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from functools import partial
from time import monotonic
from typing import Any, Final, Protocol

from lash_store._kernel.backend import Handle
from lash_store._kernel.calls import Call
from lash_store._kernel.logs import lost_term, tell
from lash_store._kernel.steady import steady_ms
from lash_store.clock import Clock
from lash_store.errors import (
    LashStoreError,
    LeaseLostReason,
    StorageError,
    StoreBusyError,
    StoreOpenError,
)

TICK_S: Final = 0.05
"""What is due in one database within this time goes together."""

_AGAIN_MS: Final = 100
"""When to try again what could not be renewed, for a reason that may pass."""

_MAY_PASS: Final = (StoreBusyError, StorageError, StoreOpenError)


class Term(Protocol):
    """What is renewed: a lease, a claim on work, a step."""

    @property
    def expires_at_ms(self) -> int:
        """When it is over by the store's clock, exclusive, milliseconds since the epoch."""


class Kept:
    """One term that is held: as it was last acknowledged, when that was asked for, and how it was lost."""

    def __init__(
        self,
        handle: Handle,
        clock: Clock,
        term: Any,
        *,
        ttl_ms: int,
        sent_ms: float,
        operation: str,
        renewing: Callable[[Any], Callable[[Any], Any]],
        lost_error: Callable[[Any, LeaseLostReason], LashStoreError],
    ) -> None:
        self.handle = handle
        self.clock = clock
        self.term = term
        self.ttl_ms = ttl_ms
        self.operation = operation
        self.renewing = renewing
        self.lost: LashStoreError | None = None
        """Why it is lost; None while it is held."""

        self.renewals = 0
        """How many renewals were committed."""

        self.loop: asyncio.AbstractEventLoop | None = None
        """The event loop that it is held in: once that is closed, nobody does."""

        self.keeper: Any = None
        """Who renews it."""

        self.queued = 0
        """The number of the keeper's note when to look at it next; 0 if there is none."""

        self.is_inherited = False
        """Whether it is the parent's, of which this process was forked."""

        self.until_ms = sent_ms + ttl_ms
        """When it is over, by the steady time since the last acknowledged renewal was sent."""

        self._lost_error = lost_error
        self._expires_at_ms = term.expires_at_ms
        self._due_ms = sent_ms + ttl_ms / 3
        self._is_in_flight = False
        self._over: threading.Event | None = None
        self._told: list[Callable[[], None]] = []
        self._lock = threading.RLock()  # reentrant: the collector may come to it in its own thread

    def check(self) -> None:
        """Raise what says that the term is over; costs no I/O."""
        if self.lost is None and (
            self.handle.read_clock(self.clock) >= self._expires_at_ms
            or steady_ms(self.clock) >= self.until_ms
        ):
            self.lose_in_time()
        if self.lost is not None:
            raise self.error()

    def error(self) -> LashStoreError:
        """Return why it is lost, for one who raises it: each has a traceback and a context of its own."""
        assert self.lost is not None
        own = copy(self.lost)
        own.__cause__ = self.lost.__cause__  # which a copy has not
        return own

    def lose(self, error: LashStoreError) -> None:
        """Note that the term is lost, once, and tell whoever waits for that.

        What its own holder has given back or completed is logged as no loss.
        """
        if self.end(error) and getattr(error, "reason", None) not in ("released", "completed"):
            tell([lost_term(self.handle.path, self.term, error)])

    def lose_in_time(self) -> None:
        """Note that it is over by the clocks of this process."""
        self.lose(self._lost_error(self.term, "expired"))

    def end(self, error: LashStoreError) -> bool:
        """Do that without a word in the log; tell whether it was not lost before."""
        with self._lock:
            if self.lost is not None:
                return False
            self.lost = error
            told, self._told = self._told, []
            if self._over is not None:
                self._over.set()
        for each in told:
            each()
        return True

    @property
    def fence(self) -> Any:
        """What proves the term."""
        return self.term.fence

    def holds(self, fence: Any) -> bool:
        """Whether it holds the very term that `fence` proves, which an owner may claim twice."""
        return self.lost is None and bool(self.fence == fence)

    def end_with(self, other: Kept) -> None:
        """Be over when another block's is, which has just moved the end of the very same term."""
        self._expires_at_ms, self.until_ms = other.term.expires_at_ms, other.until_ms
        # And be renewed as soon: the other may be forgotten, and its end stay.
        self._due_ms = min(self._due_ms, other.until_ms - other.ttl_ms * 2 / 3)

    def renew_soon(self) -> None:
        """Let its next renewal be due now."""
        self._due_ms = min(self._due_ms, steady_ms(self.clock))

    def when_lost(self, told: Callable[[], None]) -> None:
        """Call `told`, from any thread, once the term is lost: at once, if it is."""
        with self._lock:
            if self.lost is None:
                self._told.append(told)
                return
        told()

    def tell_no_more(self, told: Callable[[], None]) -> None:
        """Don't call `told` any more."""
        with self._lock, suppress(ValueError):
            self._told.remove(told)

    def leave_to_parent(self) -> None:
        """Let it be over in a child: it is the parent's, of which this process was forked."""
        self.is_inherited = True
        self._lock = threading.RLock()  # the thread that held it is the parent's
        self.end(self._lost_error(self.term, "expired"))

    def forget_who_waits(self) -> None:
        """Tell nobody: there is no event loop left to tell it in."""
        with self._lock:
            self._told.clear()

    def leave(self) -> None:
        """Let it be over: its block was left, and what it has held was released, or is another block's."""
        self.end(self._lost_error(self.term, "released"))

    def wait_lost(self, timeout_s: float | None) -> LashStoreError | None:
        """Wait until it is lost, and return why; None after `timeout_s`."""
        with self._lock:
            over = self._over = self._over or threading.Event()  # which few ever wait for
            if self.lost is not None:
                over.set()
        over.wait(None if timeout_s is None else min(timeout_s, threading.TIMEOUT_MAX))
        return self.lost

    def next_ms(self) -> float:
        """Return when there is something to do: the next renewal, or while that is asked for, the end."""
        return self.until_ms if self._is_in_flight else min(self._due_ms, self.until_ms)

    def look_at_s(self) -> float:
        """Return when the timer is to look at it next, on the monotonic clock."""
        return max(monotonic() + min(TICK_S, self.ttl_ms / 6_000), self.next_ms() / 1000)

    def asked(
        self, by_ms: float
    ) -> tuple[str, Callable[[Any], Any], float, Callable[[Call], None]] | None:
        """Return the call that renews it, if that is due by `by_ms`."""
        now_ms = steady_ms(self.clock)
        if self._is_in_flight or self._due_ms > by_ms or self.lost is not None:
            return None
        self._is_in_flight = True
        # A renewal that comes late may still find that nobody has taken over; it is over all the same.
        budget_s = max(self.until_ms - now_ms, 0) / 1000
        return self.operation, self.renewing(self.term), budget_s, partial(self._answered, now_ms)

    def _answered(self, sent_ms: float, call: Call) -> None:
        error = call.error
        if error is None:
            self.term, self.until_ms = call.result, sent_ms + self.ttl_ms
            self._expires_at_ms = self.term.expires_at_ms
            self._due_ms = sent_ms + self.ttl_ms / 3
            self.renewals += 1
            self.keeper.tell_others(self)
        elif isinstance(error, _MAY_PASS):
            self._due_ms = steady_ms(self.clock) + _AGAIN_MS
        elif isinstance(error, LashStoreError):
            self.lose(error)
        else:
            self.lose_in_time()
        self._is_in_flight = False
        self.keeper.look_soon(self)
