"""What a coroutine of the library finishes although it was cancelled."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

R = TypeVar("R")


async def finish_first(work: Coroutine[Any, Any, R]) -> R:
    """Await `work` to its end even if the caller is cancelled, and raise CancelledError then."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError:
                continue
        if not task.cancelled():
            task.exception()  # seen: the caller gets CancelledError instead
        raise
