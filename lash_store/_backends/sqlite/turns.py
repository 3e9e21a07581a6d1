"""Who of this process writes to a file now, and who waits for it, strictly in order.

A turn is held by an object, its :class:`Hold`, and only as long as that object lives. An
interrupt may strike anywhere, even between taking a turn and the ``try`` that would give it back;
whatever it unwinds lets go of the hold, and with that of the turn. So nothing that a signal does
leaves a file locked.

Nobody is handed a turn: who is first in line is told to look, and takes it by itself. So a turn
can't get lost on its way to somebody who has given up.
"""

import threading
import weakref
from collections import deque
from threading import get_ident
from typing import Final

from lash_store._kernel.calls import Call
from lash_store.errors import NestedTransactionError


class Hold:
    """What holds a turn, for as long as it lives."""

    __slots__ = ("__weakref__",)


class Turns:
    """The turns on one file."""

    __slots__ = ("_holder", "_mutex", "thread", "waiting")

    waiting: Final[deque[Call]]
    """Who waits, the first first."""

    thread: int
    """Whose turn it is, or was; see :attr:`is_mine`."""

    def __init__(self) -> None:
        # Reentrant: a signal handler may come to it while its own thread is inside.
        self._mutex = threading.RLock()
        self._holder: weakref.ref[Hold] | None = None
        self.thread = 0
        self.waiting = deque()

    @property
    def is_mine(self) -> bool:
        """Whether it is this thread's turn."""
        return self.thread == get_ident() and not self.is_free

    @property
    def is_free(self) -> bool:
        """Whether it is nobody's turn."""
        holder = self._holder
        return holder is None or holder() is None

    def is_held_by(self, hold: Hold) -> bool:
        """Whether it is `hold`'s turn."""
        holder = self._holder
        return holder is not None and holder() is hold

    def check_not_mine(self) -> None:
        """Raise NestedTransactionError if it is this thread's turn already."""
        if self.is_mine:
            raise NestedTransactionError(
                "this thread is inside a transaction on this database already, which would have "
                "to end first: use that one's `tx`, or go on after it"
            )

    def try_take(self, hold: Hold) -> bool:
        """Take the turn, if it is nobody's and nobody waits for it."""
        me = get_ident()
        with self._mutex:
            if self.waiting or not self.is_free:
                return False
            self._holder = weakref.ref(hold)
            self.thread = me
        return True

    def try_take_first(self, hold: Hold, waiting: Call | None) -> bool:
        """Take the turn, if it is nobody's and `waiting`, or anybody if it is None, is the first."""
        me = get_ident()
        with self._mutex:
            if not self.is_free or (waiting is not None and self.first() is not waiting):
                return False
            self._holder = weakref.ref(hold)
            self.thread = me
        return True

    def give_back(self, hold: Hold) -> bool:
        """Make it nobody's turn, if it is `hold`'s; tell whether it was."""
        with self._mutex:
            if not self.is_held_by(hold):
                return False
            self._holder = None
            self.thread = 0
        return True

    def put_first(self, call: Call) -> None:
        """Let `call` stand before those who wait: never while somebody removes the first of them."""
        with self._mutex:
            self.waiting.appendleft(call)

    def first(self) -> Call | None:
        """Return who waits longest."""
        waiting = self.waiting
        with self._mutex:
            while waiting and not waiting[0].waits:
                waiting.popleft()
            return waiting[0] if waiting else None
