"""How a transaction of several calls begins: with which locks, how long it waits for them, and what is set for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Final

from lash_store._backends.postgresql import dialect
from lash_store._backends.postgresql.locks import PATIENCE_MS, together
from lash_store._kernel.calls import Call, ToldCall

if TYPE_CHECKING:
    from lash_store._backends.postgresql.connection import StoreConnection

_NO_BOUND_MS: Final = 2**31 - 1


def begin_write(calls: Sequence[Call], deadline_s: float) -> Callable[[StoreConnection], None]:
    """Return what begins a transaction that writes, with the locks of these calls."""
    first = calls[0]
    locks = together(lock for call in calls for lock in call.locks)
    # A row that is locked, of an application's own table say, may keep one renewal waiting, but not
    # the others beside it, nor those behind its lock: it is asked for once more.
    is_asked_again = any(isinstance(call, ToldCall) for call in calls)
    most_ms = PATIENCE_MS if is_asked_again else _NO_BOUND_MS

    def begin(connection: StoreConnection) -> None:
        connection.operation = first.operation or "begin"
        budget_ms = min(_left_ms(deadline_s), most_ms)
        connection.begin_write(locks, budget_ms=budget_ms, setting=_setting(calls))

    return begin


def begin_read(first: Call) -> Callable[[StoreConnection], None]:
    """Return what begins the snapshot of a call."""

    def begin(connection: StoreConnection) -> None:
        connection.operation = first.operation or "read"
        connection.begin_read(budget_ms=_left_ms(first.deadline_s), setting=_setting([first]))

    return begin


def _left_ms(deadline_s: float) -> int:
    return round(max(0.0, deadline_s - monotonic()) * 1000)


def _setting(calls: Sequence[Call]) -> Iterator[str]:
    """Return what is set for the transaction; nothing that bounds what a consumer does in its own."""
    if any(call.caller.is_full for call in calls) and not calls[0].reads:
        yield dialect.FULL
    if all(call.operation is not None for call in calls):
        yield from calls[0].caller.database.bounds
