"""The one writer of a file in this process: calls take turns, and what waits goes together.

A thread whose turn it is leads by itself, on its own thread: first its own call, then what waits
(``leading``). For event loops a thread of the library leads. A lone call is one transaction and
pays for none of this. Who has to wait for another process gives the turn back between two tries,
so a turn never outlasts a transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

from lash_store._backends.sqlite import dialect
from lash_store._backends.sqlite.serving import Serving
from lash_store._backends.sqlite.turns import Hold
from lash_store._kernel.calls import ThreadCall

if TYPE_CHECKING:
    from lash_store._backends.sqlite.connection import StoreConnection


class Writer(Serving):
    """Who writes to one open database, in turn; see the head of this module."""

    # For threads.

    def write(
        self,
        caller: Any,
        operation: str | None,
        work: Callable[[Any], Any],
        by_itself: bool,  # noqa: FBT001 # reason: passed on by position, on the hottest path there is
    ) -> Any:
        """Do one call of this thread in a transaction, and return what it gives."""
        hold, turns = Hold(), self.turns
        if not turns.try_take(hold):
            turns.check_not_mine()
            return self._in_line(ThreadCall(caller, operation, work, by_itself=by_itself))
        call: ThreadCall | None = None
        try:
            nap_s = self._try_begin(operation or "transact", caller.budget_s)
            if nap_s is None:
                connection: Any = self._connections.writer
                tx = caller.make_tx(connection, operation)
                result = work(tx)
                tx.transaction = None
                if not turns.waiting:
                    connection.end(dialect.COMMIT)
                    self._began = False
                    connections = self._connections
                    # What take_news() does, where there are none, as nearly always.
                    is_quiet = not (
                        connections.watch.waiters
                        or connection.notes
                        or connections.notes
                        or connections.used_s >= connections.wal.due_s
                    )
                    news = None if is_quiet else connections.take_news()
                    turns.give_back(hold)
                    if turns.waiting:
                        self.wake_first()
                    if news is not None:
                        connections.announce(news)
                    return result
            # Only now is there anybody else, who needs to know it.
            call = ThreadCall(caller, operation, work, by_itself=by_itself)
            if nap_s is None:
                call.result = result
                self._lead_on(hold, call, on_library=False, is_done=True)
            else:
                turns.put_first(call)
                turns.give_back(hold)
            return self._in_line(call, nap_s or 0.0, stands_there=True)
        except BaseException:
            if call is not None:
                call.taken.setdefault("by", call)
            self._abort(hold)
            raise

    def write_together(
        self, calls: Sequence[tuple[Any, str | None, Callable[[Any], Any]]]
    ) -> list[ThreadCall]:
        """Run calls of several stores as one group, in this order, on this thread: for tests."""
        made = [
            ThreadCall(caller, operation, work, budget_s=caller.budget_s)
            for caller, operation, work in calls
        ]
        hold = Hold()
        first = made[0].caller
        self.take(first, hold, budget_s=first.budget_s)
        for call in reversed(made):
            self.turns.put_first(call)
        self.turns.give_back(hold)  # and nobody is woken: this thread is the first in line
        self._bound_s = inf
        try:
            for call in made:
                try:
                    self._in_line(call, stands_there=True)
                except BaseException as error:  # noqa: BLE001 # reason: it stands in the call's place
                    call.error = error
        finally:
            self._bound_s = None
        return made

    def begin(self, caller: Any, hold: Hold, *, budget_s: float) -> StoreConnection:
        """Begin a transaction for a consumer's block, which holds the turn until its end."""
        turns = self.turns
        try:
            nap_s = self._begin_or_give_back(hold, budget_s) if turns.try_take(hold) else 0.0
            if nap_s is None:
                return self._connection
            turns.check_not_mine()
            block = ThreadCall(caller, None, _no_work, budget_s=budget_s, by_itself=True)
            return self._block_in_line(block, hold, nap_s)
        except BaseException:
            self._abort(hold)
            raise

    def end(self, hold: Hold, connection: StoreConnection, *, commit: bool) -> None:
        """End a consumer's block; whatever happens, the turn is the next one's."""
        try:
            connection.end(dialect.COMMIT if commit else dialect.ROLLBACK)
        finally:
            self._began = connection.in_transaction
            self.give_back(hold)

    def take(self, caller: Any, hold: Hold, *, budget_s: float) -> None:
        """Take the turn without a transaction; StoreBusyError if that takes too long."""
        turns = self.turns
        turns.check_not_mine()
        if turns.try_take(hold):
            self._put_right()
            return
        waiting = ThreadCall(caller, None, _no_work, budget_s=budget_s, by_itself=True)
        try:
            turns.line_up(waiting)
            self._until_taken(hold, waiting)
            # Not by `hold`, which must not live for as long as this stands in line.
            waiting.take(waiting)
            self._put_right()
        except BaseException:
            waiting.taken.setdefault("by", waiting)
            self._withdrawn(hold)
            raise

    def _until_taken(self, hold: Hold, waiting: ThreadCall) -> None:
        while not self.turns.try_take_first(hold, waiting):
            self._wait_or_fail(waiting, waiting.deadline_s)

    def begin_read(
        self, caller: Any, hold: Hold, operation: str, *, budget_s: float
    ) -> StoreConnection:
        """Begin a snapshot in memory, where there is one connection for everything."""
        self.take(caller, hold, budget_s=budget_s)
        try:
            self._began = True
            connection = self._connections.checked_writer(budget_s)
            connection.operation = operation
            connection.own_cursor.execute(dialect.READ_ONLY_ON)
            connection.begin(dialect.BEGIN_READ)
        except BaseException:
            self._abort(hold)
            raise
        return connection

    def end_read(self, hold: Hold, connection: StoreConnection) -> None:
        """End a snapshot in memory."""
        try:
            connection.end(dialect.ROLLBACK)
            connection.own_cursor.execute(dialect.READ_ONLY_OFF)
            connection.touched = set()  # it has only looked
            self._began = False
        finally:
            self.give_back(hold)

    # How a thread waits.

    def _until_settled(self, hold: Hold, call: ThreadCall, nap_s: float) -> None:
        while not call.settled:
            if nap_s:
                self._wait_or_fail(call, monotonic() + nap_s)
            if call.waits and self.turns.try_take_first(hold, call):
                nap_s = self._lead(hold, call, on_library=False) or 0.0
            elif not call.settled:
                nap_s = 0.0
                self._wait_or_fail(call, call.deadline_s)

    # Who stops waiting takes its call by itself, in the handler, by one call into C: one left in
    # line by an interrupt would keep everybody behind it from their turns.
    def _in_line(self, call: ThreadCall, nap_s: float = 0.0, *, stands_there: bool = False) -> Any:
        """Wait in line until a call was led by another, or lead it; return its outcome."""
        hold = Hold()
        try:
            self._connections.check_not_beside()
            if not stands_there:
                self.turns.line_up(call)
            self._until_settled(hold, call, nap_s)
        except BaseException:
            call.is_withdrawn = True  # first: whoever gives it back in between gives it to nobody
            call.taken.setdefault("by", call)
            self._withdrawn(hold)
            raise
        finally:
            call.wake_next()
        return call.outcome()

    def _block_in_line(self, block: ThreadCall, hold: Hold, nap_s: float) -> StoreConnection:
        try:
            self._connections.check_not_beside()
            if nap_s:
                self.turns.put_first(block)
            else:
                self.turns.line_up(block)
            while True:
                if nap_s:
                    self._wait_or_fail(block, monotonic() + nap_s)
                if self.turns.try_take_first(hold, block):
                    nap_s = self._begin_or_give_back(hold, block.budget_s) or 0.0
                    if not nap_s:
                        block.take(block)  # likewise
                        self._connections.note_wait(None, block.since_s)
                        return self._connection
                else:
                    nap_s = 0.0
                    self._wait_or_fail(block, block.deadline_s)
        except BaseException:
            block.taken.setdefault("by", block)
            self._withdrawn(hold)
            raise

    def _wait_or_fail(self, call: ThreadCall, until_s: float) -> None:
        """Wait for a while; raise what ends the wait: the budget is spent, the store was closed."""
        if self._ended:
            self._settle_ended()
        self._pass_over_overdue()
        call.wait(min(until_s, call.deadline_s) if call.waits else inf)
        # Perhaps another thread has passed over it already: then it is this one that tells itself.
        if not call.settled and call.expire(monotonic()):
            call.settled = True
        if call.settled:
            call.outcome()

    def _withdrawn(self, hold: Hold) -> None:
        """Let the next one in, after a call has left the line."""
        self._abort(hold)
        if self.turns.is_free:
            self.wake_first()


def _no_work(_: Any) -> None:
    """Stand in line for a block, which does its work by itself."""
