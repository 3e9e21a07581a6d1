"""Points: where a call can be stopped, killed or made to fail, between two of its steps."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Final, Protocol

from lash_store._kernel.observing import Event, observed_by


class Arriving(Protocol):
    """Who is told of the points that a thread comes to."""

    def arrive(self, name: str) -> None:
        """The thread has come to a point."""


_HERE: Final[ContextVar[tuple[Arriving | None, int]]] = ContextVar(
    "lash_store_call", default=(None, 0)
)
"""Whose points they are, and the thread that sends its statements: those of an asyncio store others send."""


def point(name: str) -> None:
    """Stop here, if somebody plays orders, kills or fails; mark it in code of your own, between two steps.

    On the thread of a call, in its tasks, and where it goes by ``asyncio.to_thread``. A thread that it starts
    otherwise belongs to nobody: its points are passed over, unless it runs in a copy of the call's context.
    """
    call, _ = _HERE.get()
    if call is not None:
        call.arrive(name)


@contextmanager
def at_points(who: Arriving) -> Iterator[None]:
    """Tell `who` of the points in code of the consumer's own that are come to in this context."""
    before = _HERE.set((who, threading.get_ident()))
    try:
        yield
    finally:
        _HERE.reset(before)


class Points:
    """Makes a point of each statement that the library sends, for calls that stop there."""

    def before(self, event: Event) -> None:
        """Come to one."""
        call, thread = _HERE.get()
        if not getattr(call, "stops_at_statements", False) or thread != threading.get_ident():
            return  # who counts statements sees them by itself
        if event.kind == "begin" and getattr(call, "passed", [])[-1:] == ["begin"]:
            return  # it tries again, for the lock is another's
        point(event.kind if event.kind != "statement" else event.sql.split(None, 1)[0].lower())

    def after(self, event: Event) -> None:
        """Nothing: the next statement comes, or the call returns."""


_shared: Final = ExitStack()
_users: Final[list[object]] = []
_lock: Final = threading.Lock()


@contextmanager
def statements_as_points() -> Iterator[None]:
    """Make a point of each statement, once, however many blocks of this kind are open."""
    user = object()
    with _lock:
        if not _users:
            _shared.enter_context(observed_by(Points()))
        _users.append(user)
    try:
        yield
    finally:
        with _lock:
            _users.remove(user)
            if not _users:
                _shared.close()
