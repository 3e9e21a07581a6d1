"""What an event loop has done on a thread of the library: opening, say, or a consumer's own work."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from math import inf
from typing import Any, NamedTuple, TypeVar

from lash_store._kernel.calls import LoopCall, settle
from lash_store._kernel.threads import (
    CHORES,
    OPENINGS,
    READS,
    TIMER,
    WORKS,
    asked_for,
    is_library_thread,
    start_thread,
)
from lash_store.errors import StoreBusyError

R = TypeVar("R")


class Lane(NamedTuple):
    """The line of those who open one database, by its path, and for how long this one stands in it."""

    path: str
    budget_s: float


class LoopJob(LoopCall):
    """What an event loop wants done on a thread, without a place in line: opening, say."""

    __slots__ = ("_lane", "_may_be_left")

    def __init__(self, job: Callable[[], Any], lane: Lane | None, *, may_be_left: bool) -> None:
        super().__init__(None, None, job, budget_s=inf)  # type: ignore[arg-type] # reason: a job takes no transaction
        self._lane, self._may_be_left = lane, may_be_left

    async def answer(self) -> Any:
        """Wait for the outcome; of what may be left, cancelled, not even until it is known."""
        if self._may_be_left and self._waited is not None:
            return await self._waited
        return await super().answer()

    def give_up(self, lane: Lane) -> None:
        """Fail it, if it stands in line still: others wait for the same."""
        if self.take(self):
            waited_ms = round(lane.budget_s * 1000)
            self.error = StoreBusyError(lane.path, waited_ms, "those who were to open it before")
            settle([self])

    def run_job(self) -> None:
        """Do it, unless it was cancelled before."""
        if not self.take(LoopJob):
            return
        try:
            with nullcontext() if self._lane is None else asked_for(self.since_s):
                self.result = self.context.run(self.work)  # type: ignore[call-arg] # reason: a job takes no transaction
        except BaseException as error:  # noqa: BLE001 # reason: whoever awaits it gets it
            self.error = error
        settle([self])


async def on_library_thread(
    job: Callable[[], R],
    *,
    is_consumers: bool = False,
    may_be_left: bool = False,
    is_look: bool = False,
    lane: Lane | None = None,
) -> R:
    """Do `job` on a thread of the library, in the caller's contextvars; return what it gives.

    What a consumer's work asks for, from an event loop of its own, gets a thread of its own: else all
    that there are might wait for it. Cancelled before it has started, it never runs. Cancelled later,
    it is waited for, and then CancelledError is raised: the outcome is decided and nothing is left
    running. What `may_be_left` goes on without its caller. What only looks waits behind no opening. Of those in
    one `lane` two have a thread at a time; who gets none within its budget has StoreBusyError.
    """
    call = LoopJob(job, lane, may_be_left=may_be_left)
    if is_library_thread() and start_thread("lash-store-nested", call.run_job):
        pass
    elif lane is None:
        (WORKS if is_consumers else READS if is_look else CHORES).submit(call.run_job)
    elif not OPENINGS.submit(lane.path, call.run_job) and lane.budget_s < inf:
        TIMER.after(lane.budget_s, partial(call.give_up, lane))
    result: R = await call.answer()
    return result
