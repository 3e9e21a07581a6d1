"""What an event loop has done on a thread of the library: opening, say, or a consumer's own work."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any, TypeVar

from lash_store._kernel.calls import LoopCall, settle
from lash_store._kernel.threads import CHORES, WORKS, is_library_thread, start_thread

R = TypeVar("R")


class LoopJob(LoopCall):
    """What an event loop wants done on a thread, without a place in line: opening, say."""

    __slots__ = ("_may_be_left",)

    def __init__(self, job: Callable[[], Any], *, may_be_left: bool) -> None:
        super().__init__(None, None, job, budget_s=inf)  # type: ignore[arg-type] # reason: a job takes no transaction
        self._may_be_left = may_be_left

    async def answer(self) -> Any:
        """Wait for the outcome; of what may be left, cancelled, not even until it is known."""
        if self._may_be_left and self._waited is not None:
            return await self._waited
        return await super().answer()

    def run_job(self) -> None:
        """Do it, unless it was cancelled before."""
        if not self.take(LoopJob):
            return
        try:
            self.result = self.context.run(self.work)  # type: ignore[call-arg] # reason: a job takes no transaction
        except BaseException as error:  # noqa: BLE001 # reason: whoever awaits it gets it
            self.error = error
        settle([self])


async def on_library_thread(
    job: Callable[[], R], *, is_consumers: bool = False, may_be_left: bool = False
) -> R:
    """Do `job` on a thread of the library, in the caller's contextvars; return what it gives.

    What a consumer's work asks for, from an event loop of its own, gets a thread of its own: else all
    that there are might wait for it. Cancelled before it has started, it never runs. Cancelled later,
    it is waited for, and then CancelledError is raised: the outcome is decided and nothing is left
    running. What `may_be_left` goes on without its caller.
    """
    call = LoopJob(job, may_be_left=may_be_left)
    if not is_library_thread() or not start_thread("lash-store-nested", call.run_job):
        (WORKS if is_consumers else CHORES).submit(call.run_job)
    result: R = await call.answer()
    return result
