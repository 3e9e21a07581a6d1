"""The one writer of a file in this process: calls take turns, and what waits goes together.

A thread whose turn it is leads by itself, on its own thread: first its own call, then what waits
(``leading``). For event loops a thread of the library leads. A lone call is one transaction and
pays for none of this. Who has to wait for another process gives the turn back between two tries,
so a turn never outlasts a transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

from lash_store._backends.sqlite import dialect
from lash_store._backends.sqlite.group import Group
from lash_store._backends.sqlite.leading import Leader
from lash_store._backends.sqlite.turns import Hold
from lash_store._kernel.calls import LOOK_AGAIN_S, Call, LibraryCall, ThreadCall, settle
from lash_store._kernel.threads import TIMER, WORKS, WRITES, Pool

if TYPE_CHECKING:
    from lash_store._backends.sqlite.connection import StoreConnection
    from lash_store._backends.sqlite.connections import Connections


class Writer(Leader):
    """Who writes to one open database, in turn; see the head of this module."""

    def __init__(self, connections: Connections) -> None:
        super().__init__(connections)
        self._scheduled = False
        """Whether a thread of the library, or the timer, is about to lead."""

        self._handing_in: object = None
        """What a thread is about to hand that in by, which an interrupt may keep it from."""

        self._looked_after = False
        """Whether the timer looks after event loops' calls: their budgets, leaders that are gone."""

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
            while not turns.try_take_first(hold, waiting):
                self._wait_or_fail(waiting, waiting.deadline_s)
            # Not by `hold`, which must not live for as long as this stands in line.
            waiting.take(waiting)
            self._put_right()
        except BaseException:
            waiting.taken.setdefault("by", waiting)
            self._withdrawn(hold)
            raise

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

    # For event loops.

    def submit(self, call: LibraryCall) -> None:
        """Let an event loop's call stand in line."""
        self.turns.check_not_mine()
        self.submit_all((call,))

    def submit_all(self, calls: Sequence[LibraryCall]) -> None:
        """Let calls of event loops stand in line, from any thread."""
        turns = self.turns
        turns.waiting.extend(calls)
        if not self._scheduled and turns.is_free:
            self._schedule(calls[0])
        if not self._looked_after:
            self._look_after_soon()

    def refuse(self, caller: Any) -> None:
        """Fail what waits for a store that is being closed."""
        refused = Group()
        for call in list(self.turns.waiting):
            if call.caller is caller and call.take(refused):
                call.error = caller.closed_error()
                refused.calls.append(call)
        settle(refused.calls)
        self.wake_first()

    def wake_first(self) -> None:
        """Let whoever is first in line see that it is its turn."""
        if self._ended:
            self._settle_ended()
        first = self.turns.first()
        if isinstance(first, ThreadCall):
            first.wake()
        elif first is not None and not self._scheduled:
            self._schedule(first)

    # How a thread waits.

    # Who stops waiting takes its call by itself, in the handler, by one call into C: one left in
    # line by an interrupt would keep everybody behind it from their turns.
    def _in_line(self, call: ThreadCall, nap_s: float = 0.0, *, stands_there: bool = False) -> Any:
        """Wait in line until a call was led by another, or lead it; return its outcome."""
        hold = Hold()
        try:
            self._connections.check_not_beside()
            if not stands_there:
                self.turns.line_up(call)
            while not call.settled:
                if nap_s:
                    self._wait_or_fail(call, monotonic() + nap_s)
                if call.waits and self.turns.try_take_first(hold, call):
                    nap_s = self._lead(hold, call, on_library=False) or 0.0
                elif not call.settled:
                    nap_s = 0.0
                    self._wait_or_fail(call, call.deadline_s)
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

    def _pass_over_overdue(self) -> None:
        """Pass over a thread that should have given up long ago: it may be gone."""
        first, now_s = self.turns.first(), monotonic()
        if isinstance(first, ThreadCall) and first.deadline_s < now_s - LOOK_AGAIN_S:
            first.expire(now_s)

    # How the library leads for event loops.

    def _schedule(self, first: Call) -> None:
        self._handing_in = object()
        self._scheduled = True
        self._pool_for(first).submit(self._serve)
        self._handing_in = None

    def _serve(self, served: Pool | None = None) -> None:
        """Lead for as long as an event loop's call is the first in line."""
        while isinstance(first := self.turns.first(), LibraryCall):
            pool = self._pool_for(first)
            if served not in (None, pool):
                pool.submit(self._serve)  # which is meant for it
                return
            served, hold = pool, Hold()
            if not self.turns.try_take_first(hold, first):
                break  # whoever has the turn wakes the next one
            if (nap_s := self._lead(hold, first, on_library=True)) is not None:
                TIMER.after(nap_s, self._try_again)
                return
        self._scheduled = False
        self._leave_queue_if_nobody_waits()  # who was to be led may have been cancelled
        if self.turns.is_free:  # again: until just now nobody else would have been scheduled
            self.wake_first()

    def _try_again(self) -> None:
        """See whether another process has let go of the lock, on the timer, which never waits."""
        self._expire_calls()
        first, hold = self.turns.first(), Hold()
        if isinstance(first, LibraryCall) and first.is_consumers:
            # Its own thread has to try: the lock must not be had before there is a thread to use it.
            self._schedule(first)
            return
        if (
            not isinstance(first, LibraryCall)
            or self._connections.writer is None  # and opening it may wait
            or not self.turns.try_take_first(hold, first)
        ):
            self._scheduled = False
            self._leave_queue_if_nobody_waits()
            if self.turns.is_free:
                self.wake_first()
            return
        try:
            nap_s = self._try_begin(first.operation or "transact", first.budget_s)
        except Exception as error:  # noqa: BLE001 # reason: whatever it is, it is the call's answer
            self._fail(hold, first, error)
            nap_s = 0.0
        if nap_s is None:
            self._pool_for(first).submit(partial(self._serve_begun, hold, first))
        else:
            self.turns.give_back(hold)
            TIMER.after(nap_s, self._try_again)

    def _serve_begun(self, hold: Hold, first: LibraryCall) -> None:
        """Lead in the transaction that the timer has begun, and go on."""
        self.turns.move_here(hold)
        self._connection.move_here()
        self._lead(hold, first, on_library=True, has_begun=True)
        self._serve(self._pool_for(first))

    def _pool_for(self, first: Call) -> Pool:
        return WORKS if isinstance(first, LibraryCall) and first.is_consumers else WRITES

    def _look_after(self, handing_in: object = None) -> None:
        self._looked_after = False
        if handing_in is not None and handing_in is self._handing_in:  # since the last look
            self._handing_in, self._scheduled = None, False
        if self._ended:
            self._settle_ended()
        self._expire_calls()
        self._pass_over_overdue()
        if self.turns.first() is None and not self._ended:
            return
        if not self._scheduled and self.turns.is_free:
            self.wake_first()
        self._look_after_soon()

    def _look_after_soon(self) -> None:
        self._looked_after = True
        TIMER.after(LOOK_AGAIN_S, partial(self._look_after, self._handing_in))

    def _expire_calls(self) -> None:
        now_s = monotonic()
        expired = [
            call
            for call in list(self.turns.waiting)
            if isinstance(call, LibraryCall) and call.expire(now_s)
        ]
        settle(expired)


def _no_work(_: Any) -> None:
    """Stand in line for a block, which does its work by itself."""
