"""Points: where a call can be stopped, killed or made to fail, between two of its steps."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final, Protocol

from lash_store._kernel.observing import Event, observed_by

_HERE: Final = threading.local()


class Arriving(Protocol):
    """Who is told of the points that a thread comes to."""

    def arrive(self, name: str) -> None:
        """The thread has come to a point."""


def point(name: str) -> None:
    """Stop here, if somebody plays orders, kills or fails; mark it in code of your own, between two steps."""
    call: Arriving | None = getattr(_HERE, "call", None)
    if call is not None:
        call.arrive(name)


@contextmanager
def at_points(who: Arriving) -> Iterator[None]:
    """Tell `who` of the points in code of the consumer's own that this thread comes to."""
    before = getattr(_HERE, "call", None)
    _HERE.call = who
    try:
        yield
    finally:
        _HERE.call = before


class Points:
    """Makes a point of each statement that the library sends, for calls that stop there."""

    def before(self, event: Event) -> None:
        """Come to one."""
        call: Arriving | None = getattr(_HERE, "call", None)
        if not getattr(call, "stops_at_statements", False):
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
