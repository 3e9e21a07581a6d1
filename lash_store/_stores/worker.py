"""asyncio over worker threads: one that writes, one that reads.

SQLite answers in microseconds and waits in C, so a thread per kind of work is both simpler
and about ten times faster than an asyncio driver. Whole transactions run on the thread, so
the event loop never stands inside one.
"""

import asyncio
import contextvars
import os
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

R = TypeVar("R")


class Worker:
    """One thread that runs one call after another for coroutines."""

    def __init__(self, name: str, refusal: Callable[[], Exception]) -> None:
        self._name = name
        self._refusal = refusal
        self._closed = False
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=self._name)

    async def run(self, work: Callable[[], R]) -> R:
        """Run `work` on the thread, in the caller's contextvars, and return what it returns.

        Cancelled before it has started, it never runs. Cancelled later, it is waited for, and
        then CancelledError is raised: the outcome is decided and nothing is left running.
        """
        if self._closed:
            raise self._refusal()
        if self._pid != os.getpid():
            self._start()  # threads do not survive a fork
        context = contextvars.copy_context()
        future = self._executor.submit(context.run, self._call, work)
        done = asyncio.wrap_future(future)
        try:
            return await asyncio.shield(done)
        except asyncio.CancelledError:
            if not future.cancel():
                await _wait_in_spite_of_cancelling(done)
            raise

    def close(self) -> None:
        """Let the call that is running finish, refuse the waiting ones, end the thread."""
        self._closed = True
        self._executor.shutdown()

    def _call(self, work: Callable[[], R]) -> R:
        if self._closed:
            raise self._refusal()
        try:
            return work()
        except StopIteration as error:
            # A future can't carry it: the await would stay pending for ever.
            raise RuntimeError("the work raised StopIteration") from error


async def finish_first(work: Coroutine[Any, Any, R]) -> R:
    """Await `work` to its end even if the caller is cancelled, and raise CancelledError then."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await _wait_in_spite_of_cancelling(task)
        raise


async def _wait_in_spite_of_cancelling(done: asyncio.Future[R]) -> None:
    while not done.done():
        try:
            await asyncio.wait([done])
        except asyncio.CancelledError:
            continue
    if not done.cancelled():
        done.exception()  # seen: the caller gets CancelledError instead
