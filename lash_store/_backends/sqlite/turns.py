"""Who of this process writes to a file now, and who waits for it, strictly in order.

A turn is held by an object, its :class:`Hold`, and only as long as that object lives. An
interrupt may strike anywhere, even between taking a turn and the ``try`` that would give it back;
whatever it unwinds lets go of the hold, and with that of the turn. So nothing that a signal does
leaves a file locked.

Nobody is handed a turn: who is first in line is told to look, and takes it by itself. So a turn
can't get lost on its way to somebody who has given up.
"""

import threading
from collections import deque
from threading import get_ident
from typing import Final, Protocol
from weakref import ref

from lash_store._kernel.calls import Call, ThreadCall
from lash_store._kernel.unwound import is_unwound
from lash_store.errors import NestedTransactionError

_HELD: Final = 0


class Holding(Protocol):
    """What can hold a turn: it can be referred to weakly, and says whose thread it is of."""

    thread: int


class Hold:
    """What holds a turn, for as long as it lives."""

    __slots__ = ("__weakref__", "thread")

    thread: int


class Turns:
    """The turns on one file."""

    __slots__ = ("_aside", "_held", "_mutex", "waiting")

    waiting: Final[deque[Call]]
    """Who waits, the first first."""

    def __init__(self) -> None:
        # One entry, or none. It is taken by one call into C, which no interrupt divides, and
        # who has taken it can be seen from it.
        self._held: dict[int, ref[Holding]] = {}
        # Reentrant: a signal handler may come to it while its own thread is inside.
        self._mutex = threading.RLock()
        self.waiting = deque()
        self._aside: dict[Call, None] = {}
        """Who waits for a thread as well, beside the line."""

    @property
    def is_mine(self) -> bool:
        """Whether it is this thread's turn."""
        held = self._held.get(_HELD)
        holder = None if held is None else held()
        if holder is None or holder.thread != get_ident():
            return False
        if is_unwound(holder):
            self.give_back(holder)
            return False
        return True

    @property
    def is_free(self) -> bool:
        """Whether it is nobody's turn."""
        held = self._held.get(_HELD)
        return held is None or held() is None

    def is_held_by(self, hold: Holding) -> bool:
        """Whether it is `hold`'s turn."""
        held = self._held.get(_HELD)
        return held is not None and held() is hold

    def check_not_mine(self) -> None:
        """Raise NestedTransactionError if it is this thread's turn already."""
        if self._held and self.is_mine:
            raise NestedTransactionError.on_this_thread()

    def try_take(self, hold: Holding) -> bool:
        """Take the turn, if it is nobody's and nobody waits for it."""
        if self.waiting:
            return False
        hold.thread = get_ident()
        mine = ref(hold)
        return self._held.setdefault(_HELD, mine) is mine

    def try_take_first(self, hold: Holding, call: Call) -> bool:
        """Take the turn, if it is nobody's and `call` is the first in line."""
        if self.first() is not call:
            return False
        self.forget_the_gone()
        hold.thread = get_ident()
        mine = ref(hold)
        return self._held.setdefault(_HELD, mine) is mine

    def forget_the_gone(self) -> None:
        """Make it nobody's turn, if whoever held it is gone."""
        with self._mutex:
            held = self._held.get(_HELD)
            if held is not None and held() is None:
                del self._held[_HELD]

    def move_here(self, hold: Holding) -> None:
        """Go on in this thread with a turn that another one has taken for it."""
        hold.thread = get_ident()

    def give_back(self, hold: Holding) -> bool:
        """Make it nobody's turn, if it is `hold`'s; tell whether it was."""
        held = self._held.get(_HELD)
        if held is None or held() is not hold:
            return False
        del self._held[_HELD]
        return True

    def put_back(self, call: Call, by: object) -> None:
        """Let `call`, which `by` has taken, wait again, before all others."""
        with self._mutex:
            # In line first, and only then to be taken: an interrupt in between loses nobody.
            # Who stands there twice, or is at work already, is passed over.
            self.put_first(call)
            call.give_back(by)

    def line_up(self, call: ThreadCall) -> None:
        """Let a call of this thread's stand behind those who wait.

        Or before them, in a handler of a signal that came as another call of its own stands there: that one
        can't take its turn before the handler ends.
        """
        threads = [e.thread for e in list(self.waiting) if isinstance(e, ThreadCall) and e.waits]
        if call.thread in threads:
            self.put_first(call)
        else:
            self.waiting.append(call)

    def put_first(self, call: Call) -> None:
        """Let `call` stand before those who wait: never while somebody removes the first of them."""
        with self._mutex:
            self.waiting.appendleft(call)

    def stand_aside(self, call: Call) -> None:
        """Let the first in line wait beside it."""
        with self._mutex:
            self._aside[call] = None
            if self.waiting and self.waiting[0] is call:
                self.waiting.popleft()

    def first_aside(self) -> Call | None:
        """Return who waits longest beside the line; who has given up does no more."""
        for call in list(self._aside):
            if call.waits:
                return call
            self._aside.pop(call, None)
        return None

    def come_back(self) -> None:
        """Let all who wait beside the line stand before it, in their order."""
        with self._mutex:
            for call in reversed(list(self._aside)):
                self.put_first(call)  # in line first: an interrupt in between loses nobody
                self._aside.pop(call, None)

    @property
    def is_empty(self) -> bool:
        """Whether nobody stands in line, or beside it."""
        return self.first() is None and not self._aside

    def all_waiting(self) -> list[Call]:
        """Return whoever stands in line, or beside it; some may have been served by now."""
        return [*self.waiting, *self._aside]

    def first(self) -> Call | None:
        """Return who waits longest; who has given up, or was served, stands in line no more."""
        with self._mutex:
            return _first_of(self.waiting)


def _first_of(waiting: deque[Call]) -> Call | None:
    while waiting and not waiting[0].waits:
        waiting.popleft()
    return waiting[0] if waiting else None
