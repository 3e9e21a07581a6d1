"""What is done soon, and of whose end nobody hears: what was thrown away, or interrupted, leaves a term behind.

It waits for nothing where it is asked for, which may be anywhere that a garbage collector comes. A program that
ends gives it a moment.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable
from functools import partial
from time import monotonic, sleep
from typing import Any, Final

from lash_store._kernel.backend import Handle
from lash_store._kernel.calls import Call
from lash_store._kernel.posix import in_forked_child
from lash_store._kernel.threads import CHORES, TIMER
from lash_store.errors import LashStoreError, StoreClosedError

_WAITS_S: Final = 10.0
"""How long what nobody waits for may wait."""

_AT_EXIT_S: Final = 1.0
"""How long a program that ends waits for it."""

_pending: Final[set[object]] = set()


def do_later(
    handle: Handle,
    operation: str,
    work: Callable[[Any], Any],
    *,
    anew: Callable[[], object] | None,
    failed: Callable[[LashStoreError], object],
    in_line: bool = False,
) -> None:
    """Let an operation be done soon; by `anew`, on a thread, if its store is closed by then.

    What keeps it from being done is told to `failed`. It is `in_line` at once, before what this thread does
    next, where no garbage collector has come, which may have done so in the midst of anything.
    """
    mark = object()
    _pending.add(mark)

    def ended(error: LashStoreError | None) -> None:
        if isinstance(error, StoreClosedError) and anew is not None:
            CHORES.submit(lambda: end_with(anew))
            return
        _pending.discard(mark)
        if error is not None:
            failed(error)

    def end_with(do: Callable[[], object]) -> None:
        try:
            do()
        except LashStoreError as error:
            failed(error)
        finally:
            _pending.discard(mark)

    def submit() -> None:
        try:
            handle.submit_told([(operation, work, _WAITS_S, partial(_told, ended))])
        except LashStoreError as error:
            ended(error)

    if in_line:
        submit()
    else:
        TIMER.after(0, submit)


def _told(ended: Callable[[LashStoreError | None], None], call: Call) -> None:
    ended(call.error if isinstance(call.error, LashStoreError) else None)


@atexit.register
def _finish() -> None:
    until_s = monotonic() + _AT_EXIT_S
    while _pending and monotonic() < until_s:
        sleep(0.002)


@in_forked_child
def _forget() -> None:
    _pending.clear()  # they are the parent's
