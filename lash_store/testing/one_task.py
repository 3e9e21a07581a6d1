"""One event loop, and in it one task, for an implementation whose calls are awaited."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import Any


class LoopOverError(BaseException):
    """The task has ended: no refusal of anybody's."""


class OneTask:
    """An event loop in a thread, and in it the one task that awaits whatever there is to await.

    In one, because what is entered in a task has to be left in the same.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._jobs: asyncio.Queue[tuple[Any, Future[Any]] | None] = asyncio.Queue()
        self._serving: asyncio.Task[None] | None = None
        self._answer: Future[Any] | None = None
        """Of what is awaited now, or was last."""

        self._thread = threading.Thread(target=self._run, name="machine-loop", daemon=True)
        self._thread.start()

    def wait_for(self, awaitable: Any) -> Any:
        """Await it in the task, and return what it gives; LoopOverError if that is over."""
        answer: Future[Any] = Future()
        if self._loop.is_closed():
            raise LoopOverError
        try:
            self._loop.call_soon_threadsafe(self._jobs.put_nowait, (awaitable, answer))
            return answer.result()
        finally:
            if (
                not answer.done()
            ):  # an interrupt, or a test's timeout: it is not waited for at the end again
                self._loop.call_soon_threadsafe(self._give_up, answer)

    def _give_up(self, answer: Future[Any]) -> None:
        if self._answer is answer and self._serving is not None:
            self._serving.cancel()
        else:
            answer.cancel()  # it waits still

    def close(self) -> None:
        """End the task and its loop."""
        self._loop.call_soon_threadsafe(self._jobs.put_nowait, None)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            while not self._jobs.empty():
                job = self._jobs.get_nowait()
                if job is not None and job[1].set_running_or_notify_cancel():
                    job[1].set_exception(LoopOverError())
            self._loop.close()

    async def _serve(self) -> None:
        self._serving = asyncio.current_task()
        while True:
            try:
                job = await self._jobs.get()
            except asyncio.CancelledError:
                # By a scope that was entered here, a TaskGroup whose own task has failed say: whoever leaves it,
                # closing the implementation, is told why.
                continue
            if job is None:
                return
            awaitable, answer = job
            if not answer.set_running_or_notify_cancel():
                if asyncio.iscoroutine(awaitable):
                    awaitable.close()
                continue
            self._answer = answer
            try:
                answer.set_result(await awaitable)
            except BaseException as error:  # noqa: BLE001 # reason: whoever waits for it gets it
                answer.set_exception(error)
