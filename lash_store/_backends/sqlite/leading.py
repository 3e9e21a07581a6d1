"""Leading a group: one transaction for a call and for what waits behind it.

Whoever has the turn leads. It begins a transaction, does its own call, and then those of the
others that wait, each undone by itself if it fails; all are committed at once, and nobody is answered before.

What a leader has run stands in its :class:`Group`. If it is interrupted, or everything has to be
undone because of one call, the calls of the others go back to the head of the line and are run
again, alone: from the same values, with the same result.
"""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections import deque
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Final

from lash_store._backends.sqlite import dialect
from lash_store._backends.sqlite.driver import is_busy, is_constraint, own_error, store_error
from lash_store._backends.sqlite.group import Group
from lash_store._backends.sqlite.turns import Hold, Turns
from lash_store._kernel.calls import LOOK_AGAIN_S, Call, settle
from lash_store._kernel.signals import is_from_handler
from lash_store._kernel.threads import report
from lash_store._kernel.watching import POLL_S, Version
from lash_store.errors import LashStoreError

if TYPE_CHECKING:
    from lash_store._backends.sqlite.connection import StoreConnection
    from lash_store._backends.sqlite.connections import Connections
    from lash_store._backends.sqlite.fairness import WriteQueue

_BOUND_S: Final = 0.005
"""How long a group lets others join, on the monotonic clock: they all wait for its end."""

_BOUND_BESIDE_OTHERS_S: Final = 0.001
"""The same while another process writes as well, and waits for that end."""


class Leader(ABC):
    """What one open database's writer does once it is somebody's turn."""

    def __init__(self, connections: Connections) -> None:
        self._connections, self.turns = connections, Turns()
        connections.read_version = self.data_version
        self._group: Group | None = None
        """What the present leader, or one that was interrupted, has run."""

        self._began = False
        """Whether there may be a transaction to end, or a group: who began it may be gone."""

        self._ended: deque[Group] = deque()
        """Groups that are over and whose callers may not have been told yet."""

        self._unread_since_s: float | None = None
        """Since when nobody could read the data version, as somebody has the turn."""

        self._bound_s: float | None = None
        """How long a group lets others join, where a test says so."""

        self._may_need_undoing: set[str] = set()
        """Operations of the library that have failed after they had written something."""

    @abstractmethod
    def wake_first(self) -> None:
        """Let whoever is first in line see that it is its turn."""

    def data_version(self) -> Version | None:
        """Return what changes when another process commits, or another's connection of this one.

        None while somebody else has the turn, who looks at its end; unless that does not come.
        """
        connections, hold = self._connections, Hold()
        if connections.closed or connections.writer is None:
            return connections.data_version()
        connections.check_file()
        if not self.turns.try_take(hold):
            now_s = monotonic()
            since_s = self._unread_since_s = self._unread_since_s or now_s
            is_long = now_s - max(since_s, connections.looked_s) > 2 * POLL_S
            return connections.data_version() if is_long else None
        self._unread_since_s = None
        writer = connections.writer
        try:
            is_between = writer is not None and not self._began
            return connections.version_of(writer) if writer is not None and is_between else None
        except sqlite3.Error as error:
            assert writer is not None
            raise store_error(error, writer) from error
        finally:
            self.turns.give_back(hold)
            if self.turns.waiting:
                self.wake_first()

    def runs_for(self, caller: object) -> bool:
        """Whether a call of `caller` is in the group that runs now."""
        group = self._group
        return group is not None and any(call.caller is caller for call in list(group.calls))

    def give_back(self, hold: Hold) -> None:
        """Give the turn back, and let the next one have it."""
        news = self._connections.take_news() if self.turns.is_held_by(hold) else None
        if self.turns.give_back(hold):
            self.wake_first()
            self._connections.announce(news)

    def _try_begin(self, operation: str, budget_s: float) -> float | None:
        """Begin a transaction in this turn; if another process writes, return when to try again."""
        if self._began:
            self._put_right()
        connections = self._connections
        connection = connections.checked_writer(budget_s)
        connection.operation = operation
        self._began = True
        queue = connections.queue
        now_s = connections.used_s = monotonic()
        try:
            if queue is None or queue.may_try(now_s):
                connection.begin(dialect.BEGIN_WRITE)
                return None
        except sqlite3.Error as error:
            if queue is None or not is_busy(error):
                raise store_error(error, connection) from error
        return self._try_in_queue(queue, connection, now_s, budget_s)

    def _try_in_queue(
        self, queue: WriteQueue, connection: StoreConnection, now_s: float, budget_s: float
    ) -> float | None:
        """Try again among the processes that wait; if it was in vain, return when to do so next."""
        try:
            self._connections.wal.take_over(connection)
            nap_s = queue.try_begin(connection, now_s, budget_s)
        except sqlite3.Error as error:
            raise store_error(error, connection) from error
        if nap_s is not None:
            self._began = False
        return nap_s

    def _begin_or_give_back(self, hold: Hold, budget_s: float) -> float | None:
        nap_s = self._try_begin("begin", budget_s)
        if nap_s is not None:
            self.turns.give_back(hold)
        return nap_s

    def _lead(
        self, hold: Hold, first: Call, *, on_library: bool, has_begun: bool = False
    ) -> float | None:
        """Begin a transaction and lead; if another process writes, return when to try again."""
        try:
            operation = first.operation or "transact"
            nap_s = None if has_begun else self._try_begin(operation, first.budget_s)
            if nap_s is not None:
                self.turns.give_back(hold)
                return nap_s
            self._lead_on(hold, first, on_library=on_library)
        except BaseException as error:
            if not on_library:
                self._abort(hold)
                raise
            self._fail(hold, first, error)
        return None

    def _fail(self, hold: Hold, first: Call, error: BaseException) -> None:
        """Answer a call that the library was to lead with what came in between."""
        if self._group is not None and first in self._group.calls:
            self._group.calls.remove(first)
        try:
            self._abort(hold)
        except BaseException as another:  # noqa: BLE001 # reason: nobody waits for it, and others wait for this thread
            report(another)
        finally:
            first.take(hold)
            first.error = error
            settle([first])

    def _lead_on(self, hold: Hold, first: Call, *, on_library: bool, is_done: bool = False) -> None:
        """Run calls in the transaction that has begun, `first` unless that is done, and end it."""
        group = self._group = Group(None if on_library else first)
        connection = self._connection
        self._connections.note_wait(first.operation, first.since_s)
        group.calls.append(first)
        if not first.take(group):
            group.calls.clear()  # it was withdrawn since
        elif not is_done:
            self._run(connection, first, on_library=on_library)
        if group.calls and not connection.in_transaction:
            # SQLite has undone it, and the work hid that: nobody may join what is over.
            first.error = first.error or connection.ended_error()
        if first.error is not None:
            connection.end(dialect.ROLLBACK)
            self._finish(hold, group)
        elif first.alone or self._let_join(connection, first, group, on_library=on_library):
            self._commit(hold, connection, group)
        else:
            self._put_back(connection, group.calls, group)
            self.give_back(hold)

    def _let_join(
        self, connection: StoreConnection, previous: Call, group: Group, *, on_library: bool
    ) -> bool:
        """Run what waits, each call so that it alone can be undone; False if the whole transaction has to be undone."""
        turns, queue, now_s = self.turns, self._connections.queue, monotonic()
        # A consumer's work may take its time: not on the few threads that all files share for
        # what is short, so only behind another consumer's.
        takes_its_time = on_library and previous.operation is None
        is_contended = queue is not None and queue.is_contended(now_s)
        bound_s = _BOUND_BESIDE_OTHERS_S if is_contended else _BOUND_S
        until_s = now_s + (bound_s if self._bound_s is None else self._bound_s)
        while turns.waiting and monotonic() < until_s:
            call = turns.first()
            if call is None or not call.may_join(on_library=takes_its_time):
                break
            group.calls.append(call)
            if not call.take(group):
                group.calls.pop()
            elif not self._run_apart(connection, previous, call, on_library=on_library):
                return False
            previous = call
        return True

    def _run(self, connection: StoreConnection, call: Call, *, on_library: bool) -> None:
        connection.operation = call.operation or ("read" if call.reads else "transact")
        if not call.reads:
            call.run(connection, BaseException if on_library else Exception)
            return
        connection.own_cursor.execute(dialect.READ_ONLY_ON)
        touched = set(connection.touched)
        call.run(connection, BaseException if on_library else Exception)
        connection.touched = touched  # or who waits would be woken by its own look
        connection.own_cursor.execute(dialect.READ_ONLY_OFF)

    def _run_apart(
        self, connection: StoreConnection, previous: Call, call: Call, *, on_library: bool
    ) -> bool:
        """Run a call so that it alone can be undone; False if everything has to be.

        A consumer's work gets a savepoint. The library's own operations fail before they write
        anything, nearly always: then there is nothing to undo. One that was seen to fail later
        has everything undone that once, and gets a savepoint as well from then on.
        """
        operation, written = call.operation, connection.total_changes
        noted = len(connection.notes)
        if operation in self._may_need_undoing:
            operation = None
        try:
            if not self._leaves_nothing_open(connection, previous):
                return False  # it is the only one in it that has no savepoint
            if operation is None:
                connection.set_savepoint()
            self._run(connection, call, on_library=on_library)
            self._leaves_nothing_open(connection, call)  # also what would hinder an undoing
            if not connection.in_transaction:
                # An error that is the call's own, of its consumer's making or SQLite's, has
                # undone everything: it has its answer, the others have to be done again.
                call.error = call.error or connection.ended_error()
                self._answer(call)
                return False
            if operation is None:
                connection.release_savepoint(undo=call.error is not None)
                if call.error is not None:
                    del connection.notes[noted:]
            elif call.error is not None and not _is_refusal(call.error, connection, written):
                self._may_need_undoing.add(operation)
                return False
        except sqlite3.Error:
            return False
        return True

    def _leaves_nothing_open(self, connection: StoreConnection, call: Call) -> bool:
        """Let the next call find nothing of what a consumer's work has opened or put off.

        What a listener of SQLAlchemy's raises as it ends is the call's own error; False tells of it.
        """
        if call.operation is not None:
            return True
        try:
            connection.leave_nothing_open(commit=call.error is None)
        except Exception as error:
            if isinstance(error, sqlite3.Error) or is_from_handler(error):
                raise  # SQLite's own has everything undone
            call.error = call.error or error
            return False
        return True

    def _answer(self, call: Call) -> None:
        """Let a call of the present group have its answer, whatever becomes of the others."""
        assert self._group is not None
        answered = Group()
        answered.calls.append(call)
        self._ended.append(answered)
        self._group.calls.remove(call)

    def _commit(self, hold: Hold, connection: StoreConnection, group: Group) -> None:
        group.is_committing = True
        try:
            connection.end(dialect.COMMIT)
        except LashStoreError as error:
            group.error = error
            if is_constraint(error) and len(group.calls) > 1:
                # One of them has broken a key that is checked at the end, and nobody says which.
                self._put_back(connection, group.calls, group)
                self.give_back(hold)
                return
            for call in group.calls:
                call.error = own_error(error, connection)
        self._finish(hold, group)

    def _finish(self, hold: Hold, group: Group) -> None:
        """Let the next one have the turn, and then tell everybody how it ended."""
        self._ended.append(group)
        self._group = None
        self._began = False
        news = self._connections.take_news()
        self.turns.give_back(hold)
        self._settle_ended()
        self.wake_first()
        self._connections.announce(news)

    def _settle_ended(self) -> None:
        now_s = monotonic()
        for group in list(self._ended):
            if now_s - group.told_s < LOOK_AGAIN_S:
                continue  # another thread is about it
            group.told_s = now_s
            settle(group.calls)
            with suppress(ValueError):  # another thread was first
                self._ended.remove(group)
            # They say who has taken them, and would keep their stores from being freed.
            group.calls, group.own = [], None

    # What an interrupt leaves behind.

    def _abort(self, hold: Hold) -> None:
        """Undo what this turn has begun, let the next one have it, and leave no head behind."""
        try:
            if self.turns.is_held_by(hold):
                self._put_right()
        finally:
            self.give_back(hold)
            self._leave_queue_if_nobody_waits()

    def _leave_queue_if_nobody_waits(self) -> None:
        hold, queue = Hold(), self._connections.queue
        if queue is None or not queue.is_waiting or self.turns.first() is not None:
            return
        try:
            if self.turns.try_take(hold):
                queue.leave()
                self.turns.give_back(hold)
        except BaseException:
            queue.leave()  # an interrupt: this thread was about to, and may not come again for long
            raise

    def _put_right(self) -> None:
        """End what a leader that was interrupted has left, in a turn of this thread's own."""
        group, connection = self._group, self._connections.writer
        if connection is None:
            return
        is_committed = not connection.in_transaction and connection.ending == dialect.COMMIT
        if group is not None and group.is_committing and is_committed and group.error is None:
            self._ended.append(group)  # it was committed: only the answers are missing
            self._group = None
        else:
            if connection.standing is not None:
                connection.standing.abandon()
            others = (
                [] if group is None else [each for each in group.calls if each is not group.own]
            )
            self._put_back(connection, others, group)
        if self._connections.in_memory:
            connection.own_cursor.execute(dialect.READ_ONLY_OFF)
        self._began = False

    def _put_back(
        self, connection: StoreConnection, calls: list[Call], group: Group | None
    ) -> None:
        """Undo a group, and let its calls be the first to be run again, each alone."""
        if calls:
            self._connections.note_undone([each.operation for each in calls])
        connection.end(dialect.ROLLBACK)
        for call in reversed(calls):
            self.turns.put_back(call, group)
        self._group = None
        self._began = False

    @property
    def _connection(self) -> StoreConnection:
        """The connection that writes, on which this turn has begun a transaction."""
        connection = self._connections.writer
        assert connection is not None
        return connection


def _is_refusal(error: BaseException, connection: StoreConnection, written: int) -> bool:
    """Whether an operation has refused what it was to do, and written nothing since `written`."""
    is_own = isinstance(error, LashStoreError) and not isinstance(error.__cause__, sqlite3.Error)
    # SQLite counts what a statement has changed once that is over: it is, of one that did not fail.
    return is_own and connection.total_changes == written
