"""How the task that a step runs in is cancelled once its claim is lost, and naps that nothing ends."""

import asyncio
from contextlib import suppress
from time import monotonic
from weakref import ref

from lash_store._kernel.kept import Kept


async def nap_through(seconds: float) -> None:
    """Sleep for so long, cancelled or not."""
    until_s = monotonic() + seconds
    while (left_s := until_s - monotonic()) > 0:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(left_s)


class Ending:
    """Cancels the task that a step runs in once its claim is lost, unless the function is over by then."""

    def __init__(self, kept: Kept) -> None:
        # Weakly: a task that nobody refers to but its own claim's keeper is thrown away, and gives that back.
        task = asyncio.current_task()
        self._task = None if task is None else ref(task)
        self._loop = asyncio.get_running_loop()
        self._is_over = False
        self._has_cancelled = False
        self._cancelled_before = 0 if task is None else task.cancelling()
        kept.when_lost(self._told)

    def is_ours(self) -> bool:
        """Note that the function is over; whether it was cancelled for this, and for nothing else."""
        self._is_over = True
        task = None if self._task is None else self._task()
        if not self._has_cancelled or task is None:
            return False
        self._has_cancelled = False
        return task.uncancel() <= self._cancelled_before

    def _told(self) -> None:
        if self._is_over:
            return  # as nearly always: the step is left, and nobody is to be woken for that
        with suppress(RuntimeError):  # the loop has been closed in the meantime
            self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        task = None if self._task is None else self._task()
        if not self._is_over and task is not None:
            self._has_cancelled = True
            task.cancel()
