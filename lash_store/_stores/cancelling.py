"""What a coroutine of the library finishes although it was cancelled."""

import asyncio
import os
import weakref
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from inspect import CORO_CREATED, getcoroutinestate
from math import inf
from typing import Any, Final, Protocol, TypeVar

from lash_store._backends import is_server
from lash_store._kernel.jobs import Lane, on_library_thread
from lash_store._kernel.options import BUSY_TIMEOUT_MS
from lash_store._kernel.posix import in_forked_child
from lash_store._kernel.threads import CHORES
from lash_store.errors import LashStoreError


class Closable(Protocol):
    """What is open until it is closed."""

    def close(self) -> object:
        """Close it."""


R = TypeVar("R")
C = TypeVar("C", bound="Closable | None")


class Opening(Protocol):
    """What several tasks may be opening, behind locks of its own."""

    def _renew_opening(self) -> None:
        """Let nobody be opening it."""


_opening: Final[weakref.WeakSet[Opening]] = weakref.WeakSet()


def renewed_in_child(made: Opening) -> None:
    """Renew its locks in a forked child: the threads that held them, and would free them, are the parent's."""
    _opening.add(made)


@in_forked_child
def _renew() -> None:
    for each in list(_opening):
        each._renew_opening()  # noqa: SLF001 # reason: what it is for


def close_thrown_away(close: Callable[[], None]) -> None:
    """Close what a task that is thrown away has open, which can't await anything any more."""

    def close_it() -> None:
        with suppress(
            Exception
        ):  # the collector, which has found all of it, may have closed it first
            close()

    CHORES.submit(close_it)


async def _run(work: Coroutine[Any, Any, R]) -> R:
    return await work


async def finish_first(work: Coroutine[Any, Any, R]) -> R:
    """Await `work` to its end even if the caller is cancelled, and raise CancelledError then."""
    task = asyncio.ensure_future(_run(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done() or getcoroutinestate(work) == CORO_CREATED:
            if (
                task.done()
            ):  # the loop's end cancels every task, one that has not begun its work too
                task = asyncio.ensure_future(_run(work))
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError:
                continue
        if not task.cancelled():
            task.exception()  # seen: the caller gets CancelledError instead
        raise


def lane_of(path: object, options: Mapping[str, Any]) -> Lane | None:
    """Return the lane of who opens a store; None where there is none: in memory, and on a server, which has lines of its own."""
    if not isinstance(path, (str, os.PathLike)) or is_server(path):
        return None
    budget_ms = options.get("busy_timeout_ms", BUSY_TIMEOUT_MS)
    # What is no such number is refused as it is opened.
    is_number = isinstance(budget_ms, int) and 0 <= budget_ms < 2**31
    return Lane(str(path), budget_ms / 1000 if is_number else inf)


async def opened(open_it: Callable[[], C], lane: Lane | None = None) -> C:
    """Open something on a thread of the library; if the caller is cancelled meanwhile, close it."""
    made: list[C] = []
    try:
        await on_library_thread(lambda: made.append(open_it()), lane=lane)
    except asyncio.CancelledError:
        for each in made:
            if each is not None:
                with suppress(LashStoreError):  # the cancelling is what the caller hears of
                    await finish_first(on_library_thread(each.close))
        raise
    return made[0]
