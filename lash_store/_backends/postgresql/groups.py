"""Running calls: each in a transaction of its own, or what waited for the same together in one.

A thread runs its own call, and with it those of others that would have had to wait for its lock or
for its connection; for event loops a thread of the library does. One transaction has all their locks,
taken in order before the first call begins; it is committed once, and nobody is answered before.

An operation of the library nearly always refuses before it has written anything: then the others go
on. What fails in any other way has ended the transaction of all, so each is done once more, alone,
from the same values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from threading import Event, get_ident
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import psycopg

from lash_store._backends.postgresql.beginnings import begin_read, begin_write
from lash_store._backends.postgresql.connection import StoreConnection
from lash_store._backends.postgresql.ending import Group, blocked, failed
from lash_store._backends.postgresql.locks import StillBlockedError
from lash_store._kernel.calls import LOOK_AGAIN_S, Call, LibraryCall, ThreadCall, settle
from lash_store._kernel.locks import may_commit_with_first
from lash_store._kernel.logs import LONG_WAIT_S, done_again, long_wait, tell
from lash_store._kernel.threads import TIMER, Pool
from lash_store._kernel.unwound import is_unwound
from lash_store.errors import (
    LashStoreError,
    NestedTransactionError,
    OutcomeUnknownError,
    StoreBusyError,
)

if TYPE_CHECKING:
    from lash_store._backends.postgresql.database import OpenDatabase
    from lash_store._kernel.logs import Note
    from lash_store._kernel.watching import Concern

SERVERS: Final = Pool("lash-store-postgresql", 16, spare=48)
"""Runs the calls of event loops, for all databases: as many wait for their server at once."""

OWN_WORK: Final = Pool("lash-store-postgresql-work", 16)
"""Runs consumers' own work for event loops, which may take its time."""


class Groups:
    """Who runs calls on one database; see the head of this module."""

    def __init__(self, database: OpenDatabase) -> None:
        self._database = database
        self._inside: dict[int, StoreConnection] = {}
        """By thread, the transaction that writes and that it is inside of."""

        self._holders: dict[int, tuple[Callable[[], object], ThreadCall]] = {}
        """By thread, what holds the block that it has begun last, referred to weakly."""

        self._open: dict[ThreadCall, StoreConnection] = {}
        """The consumers' blocks that have begun."""

        self._running: dict[Call, Group] = {}
        """What is done now, blocks included."""

        self._is_looked_after = False

    def at_work(self) -> list[StoreConnection]:
        """Return the connections on which something is written now, or a consumer's block is open."""
        return [*self._inside.values(), *self._open.values()]

    def check_not_inside(self) -> None:
        """Raise NestedTransactionError inside a write transaction of this thread.

        A block that an interrupt kept from being entered is none, in its handler already (K-TX-10).
        """
        self._check_not_inside(me := get_ident())
        for twin in self._database.twins():
            twin.groups._check_not_inside(me)  # noqa: SLF001 # reason: of the same class

    def _check_not_inside(self, me: int) -> None:
        if me in self._inside:
            held_by, call = self._holders.get(me, (_nobody, None))
            holder = held_by()
            if call is None or holder is None or not is_unwound(holder):
                raise NestedTransactionError.on_this_thread()
            self.abandon(call)

    def abandon(self, call: ThreadCall) -> None:
        """Undo whatever there is of a consumer's block, however far it has come; see ``blocks``."""
        raise NotImplementedError

    # Standing in line.

    def start(self, call: Call) -> None:
        """Let a call begin that has waited, and now has its turn."""
        if isinstance(call, ThreadCall):
            call.wake()
        else:
            pool = OWN_WORK if call.operation is None else SERVERS
            pool.submit(lambda: self._lead(call, on_library=True))

    def run(self, call: ThreadCall) -> Any:
        """Do a call of this thread, or wait until another one has done it; return what it gives."""
        self.check_not_inside()
        turns = self._database.turns
        try:
            turns.enter(call)
            self._until_settled(call)
        except BaseException:
            call.is_withdrawn = True
            # An interrupt may have come as these were to be left.
            self._inside.pop(get_ident(), None)
            self._running.pop(call, None)
            if call.take(call) or turns.has(call):
                turns.withdraw(call)
            raise
        finally:
            call.wake_next()
        return call.outcome()

    def submit(self, calls: Sequence[LibraryCall]) -> None:
        """Let calls that no thread waits for stand in line, from any thread."""
        for call in calls:
            if self._database.turns.enter(call):
                self.start(call)
            else:
                self._have_looked_after()

    def refuse(self, caller: Any) -> None:
        """Fail what waits for a store that is being closed."""
        refused = []
        for call in self._database.turns.waiting:
            if call.caller is caller and call.take(self):
                call.error = caller.closed_error()
                refused.append(call)
                self._database.turns.withdraw(call)
        settle(refused)

    def _wait(self, call: ThreadCall) -> None:
        call.wait(call.deadline_s)
        if self._database.turns.has(call) or call.settled:
            return
        if call.expire(monotonic()):
            self._database.turns.withdraw(call)
            call.settled = True
            call.outcome()

    def _have_looked_after(self) -> None:
        if not self._is_looked_after:
            self._is_looked_after = True
            TIMER.after(LOOK_AGAIN_S, self._look_after)

    def _look_after(self) -> None:
        now_s = monotonic()
        waiting = [each for each in self._database.turns.waiting if isinstance(each, LibraryCall)]
        expired = [call for call in waiting if call.expire(now_s)]
        for call in expired:
            self._database.turns.withdraw(call)
        settle(expired)
        self._is_looked_after = len(expired) < len(waiting)
        if self._is_looked_after:
            TIMER.after(LOOK_AGAIN_S, self._look_after)

    # Leading.

    def _until_settled(self, call: ThreadCall) -> None:
        while not call.settled:
            if self._database.turns.has(call) and call.waits:
                self._lead(call, on_library=False)
            elif not call.settled:
                self._wait(call)

    def _lead(self, first: Call, *, on_library: bool) -> None:
        """Run a call that has its turn, and what joins it; answer all of them."""
        turns = self._database.turns
        group = Group([first])
        ended: list[Call] = []
        left: Sequence[Call] = []
        try:
            self._running[first] = group
            group.calls += turns.joining(first)
            taken = _taken_by(group)
            left = self._do(group, taken, on_library=on_library) if taken else []
            left = _still_wanted(left) if group.is_blocked else left
            ended = _without_those(taken, left)
        except BaseException as error:
            # An interrupt is this thread's, whoever's call it strikes.
            left = []
            ended = self._without(first, group, error)
            if not on_library:
                first.taken.setdefault("by", first)
                raise
            first.error = error
            ended.append(first)
        finally:
            try:
                self._running.pop(first, None)
                turns.leave(group.calls, partial(self._again, left, group))
            finally:
                settle(ended)
                group.calls = []  # they say who has taken them, and would keep their stores from being freed

    def _without(self, first: Call, group: Group, error: BaseException) -> list[Call]:
        """Let the others of a group that was interrupted be done again; return those that have ended.

        If COMMIT was sent, nobody may do them again unasked: they have ended, or nobody knows.
        """
        others = [call for call in group.calls if call is not first]
        if not (group.is_committing or group.is_committed):
            self._database.turns.put_back([call for call in others if call.give_back(group)])
            return []
        ended = [call for call in others if call.taken.get("by") is group]
        for call in ended:
            if group.is_committing and call.error is None:
                call.error = OutcomeUnknownError(
                    self._database.path, type(error).__name__, "interrupted at COMMIT"
                )
        return ended

    def _again(self, calls: Sequence[Call], group: Group) -> None:
        """Let calls whose transaction was undone be done again, each alone.

        Those that have not got their locks wait on, behind who has no need of them.
        """
        if group.is_blocked:
            for call in calls:
                call.is_blocked = True
            waiting = [call for call in calls if call.give_back(group, alone=False)]
            self._database.turns.put_last(waiting)
            self._have_looked_after()
        elif calls:
            tell([done_again(self._database.path, [call.operation for call in calls])])
            self._database.turns.put_back([call for call in calls if call.give_back(group)])

    def _do(self, group: Group, calls: Sequence[Call], *, on_library: bool) -> Sequence[Call]:
        """Run calls in one transaction; return those that have to be done again."""
        first = calls[0]
        try:
            try:
                connection = self._begin(calls, group.have)
            except Exception as error:  # noqa: BLE001 # reason: whatever it is, it is the calls' answer
                if type(error) is StoreBusyError:
                    group.is_blocked = True
                    return blocked(calls, error)
                return failed(calls, error)
            if not first.reads:
                self._inside[get_ident()] = connection
            if not self._run_all(connection, calls, on_library=on_library):
                connection.end(commit=False)
                return calls
            news = set(connection.touched), list(connection.notes)
            left = self._end(connection, group, calls)
        except BaseException:
            if group.connection is not None:
                group.connection.end(commit=False)
            raise
        finally:
            self._inside.pop(get_ident(), None)
            if group.connection is not None:
                self._database.give_back(group.connection)
        if left is None:
            self._announce(*news)
        return left or []

    def _begin(
        self, calls: Sequence[Call], had: Callable[[StoreConnection], object]
    ) -> StoreConnection:
        first = calls[0]
        now_s = monotonic()
        if now_s - first.since_s >= LONG_WAIT_S and not first.reads:
            tell([long_wait(self._database.path, first.operation, now_s - first.since_s)])
        if first.reads:
            begin: Callable[[StoreConnection], None] = begin_read(first)
        else:
            deadline_s = min(call.deadline_s for call in calls)
            begin = begin_write(calls, deadline_s)
        return self._database.begin(begin, had)

    def _run_all(
        self, connection: StoreConnection, calls: Sequence[Call], *, on_library: bool
    ) -> bool:
        return all(self._run(connection, call, calls, on_library=on_library) for call in calls)

    def _run(
        self, connection: StoreConnection, call: Call, calls: Sequence[Call], *, on_library: bool
    ) -> bool:
        """Run one of the calls; False if the transaction of all has to be undone for it."""
        connection.operation = call.operation or ("read" if call.reads else "transact")
        before, connection.has_written = connection.has_written, False
        own = connection.own_cursor
        own.is_last = len(calls) == 1 and may_commit_with_first(call.work)
        own.is_patient = call.operation is not None  # a consumer's own work may look at errors
        call.run(connection, BaseException if on_library else Exception)
        own.is_last = own.is_patient = False
        has_written, connection.has_written = (
            connection.has_written,
            before or connection.has_written,
        )
        if call.error is None or len(calls) == 1:
            return True
        is_refusal = isinstance(call.error, LashStoreError) and not has_written
        return is_refusal and not isinstance(call.error.__cause__, psycopg.Error)

    def _end(
        self, connection: StoreConnection, group: Group, calls: Sequence[Call]
    ) -> Sequence[Call] | None:
        """Commit, or roll back the one call that has failed; return those to be done again.

        None once something was committed, which others are to hear of.
        """
        error = calls[0].error
        if len(calls) == 1 and error is not None:
            connection.end(commit=False)
            if not isinstance(error, StillBlockedError):
                return []
            group.is_blocked, calls[0].error = True, None
            return blocked(calls, error)
        try:
            group.is_committing = True
            connection.end(commit=not calls[0].reads)
        except LashStoreError as error:
            group.is_committing = False
            return failed(calls, error)
        # In this order: an interrupt in between leaves the others to be told that nobody knows.
        group.is_committed = True
        group.is_committing = False
        connection.notes.clear()
        return [] if calls[0].reads else None

    def _announce(self, touched: set[Concern], notes: list[Note]) -> None:
        """Tell who waits, and who listens, of what was committed; not inside of it."""
        self._database.watch.announce(touched)
        tell(notes)

    def wait_for(self, caller: Any) -> None:
        """Wait until nothing is done any more for a store that is being closed; StoreBusyError."""
        until_s = monotonic() + caller.budget_s
        since_s = monotonic()
        while any(
            call.caller is caller for group in list(self._running.values()) for call in group.calls
        ):
            if monotonic() > until_s:
                raise caller.busy_error(since_s)
            Event().wait(0.002)


def _taken_by(group: Group) -> list[Call]:
    return [call for call in group.calls if call.take(group)]


def _without_those(taken: list[Call], left: Sequence[Call]) -> list[Call]:
    return [call for call in taken if call not in left]


def _still_wanted(calls: Sequence[Call]) -> Sequence[Call]:
    """Of calls that have not got their locks, those that are to wait on; the others end with this.

    What is cancelled as it waits does not happen, and what is closed waits for nothing.
    """
    for call in calls:
        if call.caller.closed:
            call.error = call.caller.closed_error()
    return [call for call in calls if not (call.caller.closed or call.is_left)]


def _nobody() -> None:
    """Hold no block."""
