"""One PostgreSQL connection: guarding its transaction and explaining its errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from threading import get_ident
from time import monotonic
from typing import Any
from weakref import WeakSet

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row
from sqlalchemy import Dialect

from lash_store._backends import tx_connection
from lash_store._backends.postgresql import dialect, guard
from lash_store._backends.postgresql.driver import (
    StoreCursor,
    code_of,
    commit_error,
    consumer_error,
    first_line,
    is_lost,
    open_cursor,
    opening_error,
    pipelining,
    store_error,
)
from lash_store._backends.postgresql.guarded import (
    GuardedConnection,
    GuardedCursor,
    GuardedServerCursor,
    close_cursors,
)
from lash_store._backends.postgresql.locks import PATIENCE_MS, Held, Lock, locks_of
from lash_store._backends.postgresql.things import ThingLocks, lock_late
from lash_store._kernel.backend import KeyLocks, Standing
from lash_store._kernel.checks import check_now
from lash_store._kernel.logs import Note
from lash_store._kernel.schema import Schema
from lash_store._kernel.sharing import shared
from lash_store.clock import Clock, SystemClock
from lash_store.errors import (
    ConnectionLostError,
    OutcomeUnknownError,
    ReadOnlyStoreError,
    StoreBusyError,
    TransactionEndedError,
)


class StoreConnection(GuardedConnection):
    """A connection whose transactions only the store begins and ends (K-TX-7)."""

    place: str
    """The schema and the prefix: what the numbers of its locks are made of."""

    explain_own = staticmethod(consumer_error)
    schema: str | None
    is_shared = True
    budget_ms: int
    """How long the present transaction may wait for a lock."""

    operation: str
    """What the current transaction is for; see ``observing.Event``."""

    own_cursor: StoreCursor
    standing: Standing | None
    """The Tx of the current transaction, or of the last one."""

    notes: list[Note]
    savepoints: list[str]
    has_written: bool
    """Whether the current transaction has changed anything, as far as that can be seen."""

    cursors: WeakSet[Any]
    _server_ms: int
    unsent: list[Callable[[], object]]
    """Statements that go with the next one whose answer is waited for: each sends one."""

    _beginning: str
    """What has begun the present transaction."""

    _has_committed: bool
    """Whether that was committed with its last statement."""

    held: Held
    """The locks of the present transaction."""

    _writes: bool
    _writes_alone: bool

    _compared: set[Schema]
    """The kinds whose tables were compared since the database was opened."""

    _made: set[Schema]
    """Those whose tables the present transaction has made."""

    def __del__(self, _: Any = None, /) -> None:
        """Go without a word: the driver ends what this process has begun, and nothing of its parent's."""

    def adopt(
        self, path: str, place: str, *, prefix: str, schema: str | None, compared: set[Schema]
    ) -> None:
        """Take charge of this connection, just opened."""
        self.own(path, prefix)
        self.place, self.schema = place, schema
        self._compared, self._made = compared, set()
        self.budget_ms, self.operation = 0, "open"
        self.standing, self.notes, self.savepoints = None, [], []
        self.has_written, self._writes_alone = False, False
        self.own_cursor = open_cursor(self, prefix, schema)
        self.cursors = WeakSet()
        self._server_ms, self._read_s, self.asked_s = 0, monotonic(), 0.0
        self.held, self.unsent = Held(), []
        self._writes, self._is_marked = False, False
        self._beginning, self._has_committed = "", False

    # The store's own control.

    def begin_write(self, locks: Sequence[Lock], *, budget_ms: int, setting: Iterable[str]) -> None:
        """Begin a transaction that writes, take its locks, and read the clock: in one round trip.

        Those are waited for as long as others can wait for this connection; what is locked later,
        in the midst of the transaction, within the budget.
        """
        self.budget_ms = budget_ms
        budget = dialect.lock_timeout(budget_ms)
        try:
            self._begin(
                dialect.BEGIN_WRITE,
                dialect.lock_timeout(min(budget_ms, PATIENCE_MS)) if locks else budget,
                *setting,
                *map(dialect.lock_statement, locks),
                *([budget] if locks and budget_ms > PATIENCE_MS else []),
            )
        except psycopg.errors.FeatureNotSupported as error:  # a replica, on which that can't begin
            raise ReadOnlyStoreError(self.path, first_line(error)) from error
        # What begins behind a statement that was to be the last (``execute_last``) waits as long as it may.
        self._beginning = self._beginning.replace(dialect.lock_timeout(PATIENCE_MS), budget)
        self.held = Held(locks)
        self._made.clear()
        self._writes_alone = not any(is_shared for _, is_shared in locks)
        self._writes = True

    def begin_read(self, *, budget_ms: int, setting: Iterable[str] = ()) -> None:
        """Begin a snapshot, in which each wait for a lock is bounded, and read the clock."""
        self.budget_ms = budget_ms
        self._begin(dialect.BEGIN_READ, *setting, dialect.lock_timeout(budget_ms))
        self.held = Held()
        self._writes, self._writes_alone = False, False

    def _begin(self, *statements: str) -> None:
        self._thread = get_ident()
        self.touched.clear()
        self._beginning = "; ".join((*statements, dialect.NOW))
        self._send_beginning(self.own_cursor)

    def _send_beginning(self, cursor: StoreCursor) -> None:
        self.own_cursor.is_last, self._has_committed = False, False
        self.unsent.clear()
        self.asked_s = monotonic()  # the clock is read after this
        try:
            cursor.execute(self._beginning, prepare=False)
        except psycopg.errors.LockNotAvailable:
            self._roll_back()  # or it could be lent to nobody: each try would open another one
            raise
        except psycopg.errors.QueryCanceled as error:
            # A statement_timeout shorter than the wait: nothing has been done, and it may wait on.
            self._roll_back()
            raise StoreBusyError(self.path, self.budget_ms) from error
        while cursor.nextset():
            pass
        self._note_time(cursor)
        self.has_written = False

    def _note_time(self, cursor: Any) -> None:
        self._server_ms, self._read_s = cursor.fetchall()[0][0], monotonic()

    def read_time(self) -> None:
        """Read the server's time again: something was waited for in the midst of the transaction."""
        self._note_time(self.own_cursor.execute(dialect.NOW, prepare=False))

    def send(self, last: Callable[[], object]) -> None:
        """Send what waits, and then `last`, and wait for all of it at once."""
        waiting, self.unsent[:] = list(self.unsent), []
        failure: psycopg.Error | None = None
        try:
            with pipelining(self), self.pipeline():
                try:
                    for each in (*waiting, last):
                        each()
                except psycopg.Error as error:
                    # If it left the pipeline, the driver would log what follows from it.
                    failure = error
        except psycopg.Error as error:
            failure = failure or error
        except BaseException:
            self.discard()  # an interrupt: what of it was done nobody here knows
            raise
        if failure is None:
            return
        is_drivers = isinstance(failure, (psycopg.OperationalError, psycopg.InterfaceError))
        if is_drivers and failure.sqlstate is None:
            self.discard()  # what the server has done of it, the driver can't say any more
        else:
            # What stood behind it was not even parsed, and the driver takes it to be prepared: this
            # connection prepares nothing any more, and is lent to nobody once it is given back.
            self._is_marked, self.prepare_threshold = True, None
        raise failure

    def send_unsent(self) -> None:
        """Send what waits, if anything does."""
        if not self.unsent:
            return
        last = self.unsent.pop()
        try:
            self.send(last)
        except psycopg.Error as error:
            raise store_error(error, self) from error

    def execute_last(self, cursor: StoreCursor, sql: str, parameters: Any) -> None:
        """Execute what is the last statement of the transaction, and commit, without waiting in between.

        If it changed nothing there was nothing to commit, and a transaction of the same locks begins:
        whoever sent it looks for the reason next.
        """
        ending = open_cursor(self, self.prefix, self.schema)
        self._require_connected()
        self.unsent.append(lambda: cursor.execute_now(sql, parameters))
        try:
            self.send(lambda: ending.execute_now(dialect.COMMIT))
        except psycopg.Error as error:
            if is_lost(error, self):
                raise OutcomeUnknownError(self.path, code_of(error), first_line(error)) from error
            raise
        if cursor.rowcount > 0:
            self._has_committed = True
        else:
            self._send_beginning(ending)

    def end(self, *, commit: bool) -> None:
        """Commit or roll back, and close what the consumer has open on it."""
        try:
            self._close_consumers(commit=commit)
        except BaseException as error:
            self._roll_back()
            if not isinstance(error, psycopg.Error):
                raise
            self.notes.clear()
            if commit:
                raise store_error(error, self) from error
            return  # it is undone, as it was to be
        if not commit:
            self.notes.clear()
            self._roll_back()
        elif not self._has_committed:
            self._commit()

    def _commit(self) -> None:
        if self.info.transaction_status is not TransactionStatus.INTRANS:
            self.notes.clear()
            self._roll_back()
            raise self.ended_error()
        self._require_connected()
        try:
            self.own_cursor.execute(dialect.COMMIT)
        except BaseException as error:
            self.notes.clear()
            if not isinstance(error, psycopg.Error):
                self.discard()  # an interrupt: whether it was committed nobody here knows
                raise
            explained = commit_error(error, self)
            if isinstance(explained, (ConnectionLostError, OutcomeUnknownError)):
                self.discard()
            else:
                self._roll_back()
            raise explained from error

    def _require_connected(self) -> None:
        """Raise ConnectionLostError if the server has said that it is gone, before COMMIT is sent (K-PG-2)."""
        try:
            for _ in range(2):  # what it has said last, and then that it is gone; neither waits
                self.pgconn.consume_input()
        except psycopg.Error as error:
            self.notes.clear()
            self.discard()
            raise ConnectionLostError(self.path, code_of(error), first_line(error)) from error

    def _roll_back(self) -> None:
        """Roll back; a connection on which that can't be done is of no more use, and undone by its loss."""
        self.unsent.clear()
        if self.closed or self.info.transaction_status is TransactionStatus.IDLE:
            return
        try:
            self.own_cursor.execute(dialect.ROLLBACK)
        except psycopg.Error:
            self.discard()
        except BaseException:
            self.discard()
            raise

    def _close_consumers(self, *, commit: bool) -> None:
        while self._consumers:
            tx_connection.disconnect(self._consumers.popitem()[1], self, commit=commit)
        close_cursors(self.cursors, commit=commit)

    def discard(self) -> None:
        """Close it for good, whatever it is in the midst of; the server rolls that back."""
        self.engine = None
        with suppress(psycopg.Error):
            psycopg.Connection.close(self)

    @property
    def is_idle(self) -> bool:
        """Whether another transaction can begin on it: not behind what a consumer has set for good."""
        is_free = not self.closed and self.info.transaction_status is TransactionStatus.IDLE
        return is_free and not self._is_marked and self.row_factory is tuple_row

    # What a Tx stands on.

    def now_ms(self, clock: Clock) -> int:
        """Return the server's time, read behind the lock; of another clock than the system's its own."""
        return self._server_ms if type(clock) is SystemClock else check_now(clock.now_ms())

    def server_ms(self) -> int:
        """Return the server's time, as it is by now: as far as this machine's steady clock can say."""
        return self._server_ms + int((monotonic() - self._read_s) * 1000)

    def further_cursor(
        self, schema: Schema, scope: str, key: tuple[str, ...] | None = None
    ) -> StoreCursor:
        """Open one more cursor on this transaction, once it has the locks and the tables of that Tx."""
        if self._writes:
            lock_late(self, locks_of(self.place, schema, scope, key))
        wanted = shared(schema, self.prefix)
        if wanted not in self._compared:
            self._hold(wanted)
        return open_cursor(self, self.prefix, self.schema)

    def _hold(self, schema: Schema) -> None:
        try:
            place = guard.server_place(self.own_cursor, self.path, self.schema)
            if not guard.hold(self.own_cursor, schema, self.path, place, writes=self._writes):
                self._made.add(schema)
            elif schema not in self._made:  # which may be undone with this transaction
                self._compared.add(schema)
        except psycopg.Error as error:
            raise opening_error(error, self, self.schema) from error

    @property
    def key_locks(self) -> KeyLocks | None:
        """None if it has the lock on its kind alone, or is a session's."""
        return None if self._writes_alone else ThingLocks(self)

    @property
    def consumer_dialect(self) -> Dialect:
        """What a consumer's statements are compiled for."""
        return dialect.consumer_dialect_for(self.prefix, self.schema)

    def ended_error(self) -> TransactionEndedError:
        """Return the error of a transaction that is over before its end."""
        return TransactionEndedError(
            f"an error has ended the transaction on {self.path!r}; nothing of it was kept"
        )

    def check_thread(self) -> None:
        """Raise ThreadError in any thread but the one that began it; take locks again that have lapsed."""
        super().check_thread()
        if lapsed := self.held.lapsed:
            lock_late(self, lapsed)

    def admit(self, sql: object) -> None:
        """Refuse a consumer's statement that would end the transaction; note what it leaves behind."""
        dialect.check_no_control(sql)
        self._is_marked = self._is_marked or dialect.outlasts_transaction(sql)
        self.held.note_rollback(sql)

    # What follows is what SQLAlchemy, or a consumer past it, calls.

    def cursor(self, *arguments: Any, **options: Any) -> Any:
        """Open a cursor inside the current transaction; a named one is the server's, for streaming."""
        self.check_usable()
        if arguments or options.get("name"):
            self.server_cursor_factory = GuardedServerCursor
            cursor: Any = super().cursor(*arguments, **options)
        else:
            cursor = GuardedCursor(self)
        self.cursors.add(cursor)
        return cursor

    def close(self) -> None:
        """Refuse: the store closes."""
        if self.in_transaction:
            self.refuse("close()")
        self.discard()
