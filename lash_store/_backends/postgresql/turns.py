"""Who of this process is at a database, and who waits for it: for a connection, or for a lock.

A call that would only wait for a lock that another call of this process has waits here, where it
takes no connection. So one busy session keeps nobody else from the few connections there are. What
waits for the same lock, or for any connection, goes together once there is one (``groups``).

In order: nobody overtakes who waits for the same lock.
"""

import threading
from collections.abc import Callable, Collection, Iterable
from itertools import islice
from typing import Final

from lash_store._backends.postgresql.line import Line
from lash_store._backends.postgresql.locks import Lock, together
from lash_store._kernel.calls import Call, ToldCall
from lash_store._kernel.locks import must_go_alone

_MOST_LOOKED_AT: Final = 256
_MOST_TOGETHER: Final = 32
_EXCLUSIVE: Final = -1
_ENOUGH: Final = 4
"""How many connections there have to be so that one can be left to renewals."""


class Turns:
    """The connections and locks that calls of this process have, and the line of those who wait."""

    def __init__(self, most: int, start: Callable[[Call], None]) -> None:
        self._mutex = threading.RLock()
        self._most = most
        self._for_renewals = 1 if most >= _ENOUGH else 0
        """How many connections all others leave to renewals: they may all wait for what another process locks."""

        self._kept = self._for_renewals + (0 if most == 1 else 1)
        """How many consumers' own work leaves to what is short."""

        self._admitted: dict[Call, tuple[Lock, ...]] = {}
        """Who has a connection, with the locks of all that go on it: one entry, which no interrupt divides."""

        self._start = start
        self.waiting = Line()

    def has(self, call: Call) -> bool:
        """Whether it is this call's turn."""
        return call in self._admitted

    def enter(self, call: Call) -> bool:
        """Let a call begin at once, or stand in line; whoever leaves starts it then."""
        with self._mutex:
            wanted = self.waiting.wanted(call.locks)
            if self.has_connection(call) and _may_have(call.locks, self._held(), wanted):
                self._admitted[call] = call.locks
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
            elif call in self._admitted:
                self.leave([call])
                return
            held = self._held()
            if call.locks and all(held.get(each) == _EXCLUSIVE for each, _ in call.locks):
                return  # nobody who stands behind it can begin for that
        self._next()

    def leave(self, calls: Iterable[Call], again: Callable[[], None] | None = None) -> None:
        """End the turn of a call, and of those that have joined it, and let others begin.

        By `again` some of them stand in line once more: nobody withdraws them in between.
        """
        ended = list(calls)
        try:
            with self._mutex:
                self._let_go(ended)
                if again is not None:
                    again()
        except BaseException:
            # An interrupt: what was not let go of would be locked for as long as the process lives.
            with self._mutex:
                self._let_go(ended)
            raise
        finally:
            self._next()

    def _let_go(self, ended: Iterable[Call]) -> None:
        for call in ended:
            self._admitted.pop(call, None)

    def joining(self, first: Call) -> list[Call]:
        """Return what waits and may go with `first`, which is about to begin; they have their locks.

        All of them are blocked by its locks alone, or by the want of a connection. A consumer's work
        goes with nobody: it may take its time, or fail in the midst of what it does.
        """
        if not self.waiting or first.alone or not _may_go_together(first):
            return []
        joined: list[Call] = []
        with self._mutex:
            locks, held = first.locks, self._held(but=first)
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
                    and _may_have(call.locks, held, passed, {number for number, _ in locks})
                ):
                    locks = together((*locks, *call.locks))
                    joined.append(call)
                else:
                    _note(call.locks, passed)
            try:
                self._admitted[first] = locks
                for call in joined:
                    self.waiting.remove(call)
            except BaseException:
                self.waiting.put_first(joined)  # an interrupt: they have left the line, or not yet
                raise
        return joined

    def _next(self) -> None:
        started: list[Call] = []
        with self._mutex:
            passed: dict[int, bool] = {}
            blocked: set[tuple[Lock, ...]] = set()
            held = self._held()
            for call in self.waiting if self._free else ():
                if not self._free or (self._free <= self._kept and not self.waiting.has_operations):
                    break  # or as many consumers' calls as wait would be looked at for nothing
                if not call.waits:
                    self.waiting.remove(call)  # it was withdrawn, or it has expired
                elif call.locks in blocked:
                    pass  # as one before it, of however many: what stands behind them may begin
                elif self.has_connection(call) and _may_have(call.locks, held, passed):
                    self._admitted[call] = call.locks
                    self.waiting.remove(call)
                    started.append(call)
                    held = self._held()
                else:
                    _note(call.locks, passed)
                    blocked.update([call.locks] if call.locks else [])
        for call in started:
            self._start(call)

    def has_connection(self, call: Call) -> bool:
        """Whether there is a connection for a call: what may take its time must not have them all."""
        if isinstance(call, ToldCall):
            return self._free > 0
        return self._free > (self._kept if call.operation is None else self._for_renewals)

    @property
    def _free(self) -> int:
        return self._most - len(self._admitted)

    def _held(self, *, but: Call | None = None) -> dict[int, int]:
        """Return by number how many share a lock, or that one has it alone; `but` one left aside."""
        held: dict[int, int] = {}
        for call, locks in self._admitted.items():
            if call is not but:
                for number, is_shared in locks:
                    held[number] = held.get(number, 0) + 1 if is_shared else _EXCLUSIVE
        return held


def _may_have(
    locks: Iterable[Lock],
    held: dict[int, int],
    wanted: dict[int, bool],
    mine: Collection[int] = (),
) -> bool:
    """Whether nobody else has these locks, and nobody who stands before has asked for those that are not `mine`."""
    for number, is_shared in locks:
        having = held.get(number, 0)
        if having == _EXCLUSIVE or (having and not is_shared):
            return False
        if number not in mine and number in wanted and not (is_shared and wanted[number]):
            return False
    return True


def _may_go_together(call: Call) -> bool:
    """Whether a call may share a transaction, as it says itself; a consumer's own work never."""
    return call.operation is not None and not must_go_alone(call.work)


def _note(locks: Iterable[Lock], wanted: dict[int, bool]) -> None:
    """Note what is asked for, and whether it is to be shared by all who ask."""
    for number, is_shared in locks:
        wanted[number] = wanted.get(number, True) and is_shared
