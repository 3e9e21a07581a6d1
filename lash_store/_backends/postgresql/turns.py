"""Who of this process is at a database, and who waits for it: for a connection, or for a lock.

A call that would only wait for a lock that another call of this process has waits here, where it
takes no connection. So one busy session keeps nobody else from the few connections there are. What
waits for the same lock, or for any connection, goes together once there is one (``groups``).

In order: nobody overtakes who waits for the same lock.
"""

import threading
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final

from lash_store._backends.postgresql.line import Line
from lash_store._backends.postgresql.locks import Lock
from lash_store._kernel.calls import Call, ToldCall

_MOST_LOOKED_AT: Final = 256
_MOST_TOGETHER: Final = 32
_EXCLUSIVE: Final = -1


class Turns:
    """The connections and locks that calls of this process have, and the line of those who wait."""

    def __init__(self, most: int, start: Callable[[Call], None]) -> None:
        self._mutex = threading.RLock()
        self._free = most
        self._kept = 0 if most == 1 else 1
        """How many connections consumers' own work leaves to what is short: a renewal, say."""

        self._held: dict[int, int] = {}
        """By number, how many share a lock, or that one has it alone."""

        self._start = start
        self.waiting = Line()

    def enter(self, call: Call) -> bool:
        """Let a call begin at once, or stand in line; whoever leaves starts it then."""
        with self._mutex:
            if self._has_connection(call) and self._may_have(
                call.locks, self.waiting.wanted(call.locks)
            ):
                self._admit(call)
                return True
            if isinstance(call, ToldCall):
                self.waiting.put_first([call])  # a renewal: who waits for it has a lease to lose
            else:
                self.waiting.append(call)
            return False

    def put_back(self, calls: Iterable[Call]) -> None:
        """Let calls stand before all others, to be done once more."""
        with self._mutex:
            self.waiting.put_first(calls)

    def put_last(self, calls: Iterable[Call]) -> None:
        """Let calls stand behind all that don't wait for them: they have waited in vain for a while."""
        with self._mutex:
            self.waiting.put_last(calls)

    def withdraw(self, call: Call) -> None:
        """Take a call out of the line, or out of its turn: whoever made it gave up."""
        with self._mutex:
            if call in self.waiting:
                self.waiting.remove(call)
            elif call.is_admitted:
                self.leave([call])
                return
            if call.locks and all(self._held.get(each) == _EXCLUSIVE for each, _ in call.locks):
                return  # nobody who stands behind it can begin for that
        self._next()

    def leave(self, calls: Iterable[Call], again: Callable[[], None] | None = None) -> None:
        """End the turn of a call, and of those that have joined it, and let others begin.

        By `again` some of them stand in line once more: nobody withdraws them in between.
        """
        ended = list(calls)
        numbers = {number for call in ended for number, _ in call.locks}
        try:
            with self._mutex:
                free, held = self._free, dict(self._held)
                try:
                    self._let_go(ended, numbers)
                except BaseException:
                    # An interrupt: what it left half done would be locked for as long as the process lives.
                    self._free, self._held = free, held
                    self._let_go(ended, numbers)
                    raise
                if again is not None:
                    again()
        finally:
            self._next()

    def joining(self, first: Call) -> list[Call]:
        """Return what waits and may go with `first`, which is about to begin; they have their locks.

        All of them are blocked by its locks alone, or by the want of a connection. A consumer's work
        goes with nobody: it may take its time, or fail in the midst of what it does.
        """
        if not self.waiting or first.alone or not _may_go_together(first):
            return []
        joined: list[Call] = []
        with self._mutex:
            mine = {number for number, _ in first.locks}
            passed: dict[int, bool] = {}
            for call in islice(self.waiting, _MOST_LOOKED_AT):
                if len(joined) == _MOST_TOGETHER:
                    break
                fits = call.reads == first.reads and _may_go_together(call) and call.waits
                if first.is_blocked or call.is_blocked:
                    fits = fits and call.locks == first.locks  # none that need not wait for that
                if (
                    fits
                    and call.may_join(on_library=False)
                    and self._may_have(call.locks, passed, mine)
                ):
                    self.waiting.remove(call)
                    for lock in call.locks:
                        self._take(lock, mine)
                    mine.update(number for number, _ in call.locks)
                    joined.append(call)
                else:
                    _note(call.locks, passed)
        return joined

    def _next(self) -> None:
        started: list[Call] = []
        with self._mutex:
            passed: dict[int, bool] = {}
            blocked: set[tuple[Lock, ...]] = set()
            for call in self.waiting if self._free else ():
                if not self._free:
                    break
                if not call.waits:
                    self.waiting.remove(call)  # it was withdrawn, or it has expired
                elif call.locks in blocked:
                    pass  # as one before it, of however many: what stands behind them may begin
                elif self._has_connection(call) and self._may_have(call.locks, passed):
                    self.waiting.remove(call)
                    self._admit(call)
                    started.append(call)
                else:
                    _note(call.locks, passed)
                    blocked.update([call.locks] if call.locks else [])
        for call in started:
            self._start(call)

    def _has_connection(self, call: Call) -> bool:
        """Whether there is a connection for a call: what may take its time must not have them all."""
        return self._free > (self._kept if call.operation is None else 0)

    def _admit(self, call: Call) -> None:
        self._free -= 1
        call.is_admitted = True
        for lock in call.locks:
            self._take(lock, set())

    def _may_have(
        self, locks: Iterable[Lock], wanted: dict[int, bool], mine: Iterable[int] = ()
    ) -> bool:
        """Whether nobody has these locks, and nobody who stands before has asked for them."""
        for number, is_shared in locks:
            held = self._held.get(number, 0)
            if number in mine:
                # With who has it: alone, or shared with nobody but that one where it is wanted alone.
                if held == _EXCLUSIVE or is_shared or held == 1:
                    continue
                return False
            if held == _EXCLUSIVE or (held and not is_shared):
                return False
            if number in wanted and not (is_shared and wanted[number]):
                return False
        return True

    def _take(self, lock: Lock, mine: Iterable[int]) -> None:
        number, is_shared = lock
        if number in mine:
            if not is_shared:
                self._held[number] = _EXCLUSIVE
            return
        self._held[number] = self._held.get(number, 0) + 1 if is_shared else _EXCLUSIVE

    def _let_go(self, ended: Iterable[Call], numbers: Iterable[int]) -> None:
        self._free += 1
        for call in ended:
            call.is_admitted = False
        for number in numbers:
            held = self._held[number]
            if held in (_EXCLUSIVE, 1):
                del self._held[number]
            else:
                self._held[number] = held - 1


def _may_go_together(call: Call) -> bool:
    """Whether a call may share a transaction: not if a row's own lock decides what it is about.

    Two transactions of several ``claim_next`` could each wait for what the other has claimed.
    """
    if call.operation is None:
        return False
    return call.reads or not all(is_shared for _, is_shared in call.locks)


def _note(locks: Iterable[Lock], wanted: dict[int, bool]) -> None:
    """Note what is asked for, and whether it is to be shared by all who ask."""
    for number, is_shared in locks:
        wanted[number] = wanted.get(number, True) and is_shared
