"""How a transaction of several calls has ended, and what each of them is told of it."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import Any

from lash_store._kernel.calls import Call
from lash_store.errors import LashStoreError, OutcomeUnknownError, StoreBusyError


class Group:
    """The calls that one transaction is for, the leading one first, and how far it has come."""

    __slots__ = ("calls", "connection", "is_blocked", "is_committed", "is_committing")

    def __init__(self, calls: Sequence[Call]) -> None:
        self.calls = list(calls)
        self.is_committing = False
        """Whether COMMIT was sent, and its answer is not known."""
        self.is_committed = False
        self.connection: Any = None
        """What it has begun on."""

        self.is_blocked = False
        """Whether its locks were not to be had for as long as it may keep a connection for that."""

    def have(self, connection: Any) -> None:
        """Note what it has begun on."""
        self.connection = connection


def failed(calls: Sequence[Call], error: Exception) -> Sequence[Call]:
    """Let calls fail of what has struck their transaction; return those to be done again instead.

    What may be the fault of one of them, or be over in a moment, each has to find out by itself; a
    lost connection at COMMIT is the same answer for all: nobody may do that again unasked.
    """
    if len(calls) > 1 and not isinstance(error, OutcomeUnknownError):
        return blocked(calls, error) if isinstance(error, StoreBusyError) else calls
    for call in calls:
        call.error = _own(error)
        if type(error) is StoreBusyError:
            call.error = call.caller.busy_error(call.since_s)
            call.error.__cause__ = error.__cause__
    return []


def blocked(calls: Sequence[Call], error: StoreBusyError) -> Sequence[Call]:
    """Let calls fail whose time is up; return those that may wait on for what is locked."""
    now_s = monotonic()
    for call in calls:
        if call.deadline_s <= now_s:
            call.error = call.caller.busy_error(call.since_s)
            call.error.__cause__ = error.__cause__
    return [call for call in calls if call.error is None]


def _own(error: Exception) -> Exception:
    """Return the same error again: each caller gets an object of its own."""
    own = type(error)(*error.args) if isinstance(error, LashStoreError) else error
    own.__cause__ = error.__cause__
    return own
