"""One SQLite connection: guarding its transaction and explaining its errors."""

import secrets
import sqlite3
import weakref
from collections.abc import Iterator
from contextlib import suppress
from threading import get_ident
from typing import Any, NoReturn, cast

from sqlalchemy import Connection, Dialect

from lash_store._backends import tx_connection
from lash_store._backends.sqlite import dialect, guard
from lash_store._backends.sqlite.driver import (
    StoreCursor,
    consumer_error,
    open_cursor,
    store_error,
    unobserved,
)
from lash_store._backends.sqlite.extras import declared_with
from lash_store._backends.sqlite.guarded import GuardedCursor
from lash_store._backends.sqlite.pragmas import Changed
from lash_store._kernel.backend import Standing
from lash_store._kernel.checks import NO_SECONDS, check_now
from lash_store._kernel.logs import Note
from lash_store._kernel.observing import observers
from lash_store._kernel.options import Settings
from lash_store._kernel.schema import Schema
from lash_store._kernel.sharing import shared
from lash_store.clock import MAX_INT, Clock
from lash_store.errors import TransactionEndedError


class StoreConnection(tx_connection.OwnedConnection, sqlite3.Connection):
    """A connection whose transactions only the store begins and ends (K-TX-7).

    A consumer's cursors are remembered, because one that is still open at COMMIT would keep a read
    transaction alive behind our back.
    """

    explain_own = staticmethod(consumer_error)

    is_shared: bool
    key_locks: None = None
    busy_timeout_ms: int
    folds_by_itself: bool  # SQLite puts the WAL into the file, behind a COMMIT; else ``wal`` does
    operation: str
    """What the current transaction is for; see ``observing.Event``."""

    own_cursor: StoreCursor
    """The store's own cursor, for every statement that fetches all its rows at once."""

    ending: str
    """How the last transaction was last told to end: a COMMIT that fails becomes a ROLLBACK."""

    standing: Standing | None
    """The Tx of the current transaction, or of the last one."""

    notes: list[Note]
    """What is to be logged of the current transaction once it is committed."""

    savepoints: list[str]
    changed: Changed
    """What a consumer has changed for the connection, to be undone at the end."""

    _compared: guard.Compared
    _settings: Settings
    _cursors: list[weakref.ref[sqlite3.Cursor]]
    _savepoint: tuple[str, str, str]
    _begun_by: str

    def __del__(self) -> None:
        """Go without a word, with a store that nobody has closed: from Python 3.13 on the driver warns."""
        with suppress(sqlite3.Error):  # it was never opened
            sqlite3.Connection.close(self)

    def adopt(self, path: str, settings: Settings, *, prefix: str) -> None:
        """Take charge of this connection, just opened on `path`."""
        self.own(path, prefix)
        self._settings = settings
        self.is_shared = bool(prefix)
        self.busy_timeout_ms = settings.busy_timeout_ms
        self.folds_by_itself = True
        self.operation = "open"
        self.ending = dialect.ROLLBACK
        self.standing = None
        self.changed = Changed(self)
        self.notes, self.savepoints, self._compared = [], [], {}
        self._cursors = []
        self.choose_cursor()
        # A consumer may release any savepoint whose name it knows, and nobody knows this one.
        savepoint = f"SAVEPOINT call_{secrets.token_hex(8)}"
        self._savepoint = (savepoint, f"ROLLBACK TO {savepoint}", f"RELEASE {savepoint}")

    def choose_cursor(self) -> None:
        """Make the store's own cursor, of the class that is due now."""
        self.own_cursor = open_cursor(self, self.prefix)
        self._observed = bool(observers)

    def begin(self, how: str) -> None:
        """Begin a transaction: `how` is ``BEGIN_WRITE`` or ``BEGIN_READ`` of ``dialect``."""
        if observers or self._observed:
            self.choose_cursor()
        self._thread = get_ident()
        self.touched.clear()
        self._begun_by = how
        self.own_cursor.execute(how)

    def wait_for(self, busy_timeout_ms: int) -> None:
        """Have statements wait so long for a lock from now on: a handle's own budget."""
        unobserved(self.own_cursor, dialect.busy_timeout(busy_timeout_ms))
        self.busy_timeout_ms = busy_timeout_ms

    def move_here(self) -> None:
        """Go on in this thread with a transaction that another one has begun for it."""
        self._thread = get_ident()

    def set_savepoint(self) -> None:
        """Begin what can be undone by itself: one call among several."""
        self.own_cursor.execute(self._savepoint[0])

    def release_savepoint(self, *, undo: bool) -> None:
        """Keep or undo what was done since :meth:`set_savepoint`."""
        if undo:
            self.own_cursor.execute(self._savepoint[1])
        self.own_cursor.execute(self._savepoint[2])

    def end(self, how: str) -> None:
        """End the transaction, by ``COMMIT`` or ``ROLLBACK``, and what the consumer has open on it."""
        if self._consumers or self._cursors or self.changed.before:
            self._end_with_consumers(how)
            return
        if self.notes and how == dialect.ROLLBACK:
            self.notes.clear()
        if not self.in_transaction:
            if how == dialect.COMMIT:
                raise self.ended_error()
            return
        self.ending = how
        try:
            self.own_cursor.execute(how)
        except BaseException as error:
            self.notes.clear()
            if self.in_transaction:
                self.ending = dialect.ROLLBACK
                self.own_cursor.execute(dialect.ROLLBACK)
            if isinstance(error, sqlite3.Error):
                raise store_error(error, self) from error
            raise

    def _end_with_consumers(self, how: str) -> None:
        if self._consumers:
            self._disconnect(how)
        self._close_cursors()
        changed, self.changed = self.changed, Changed(self)
        try:
            self.end(how)
        finally:
            changed.restore(is_over=True)

    def leave_nothing_open(self, *, commit: bool) -> None:
        """Close what a consumer has open or put off, in the midst of a transaction that goes on.

        `commit` is what its Connections tell their listeners, whose errors are its own.
        """
        try:
            for consumer in self._taking_consumers():
                tx_connection.disconnect(consumer, self, commit=commit)
        except BaseException:
            self.leave_nothing_open(commit=False)
            raise
        if self._cursors:
            self._close_cursors()
        self.changed.restore()
        self.own_cursor.execute(dialect.CHECK_KEYS_AT_ONCE)

    def ended_error(self) -> TransactionEndedError:
        """Return the error of a transaction that is over before its end."""
        return TransactionEndedError(
            f"SQLite rolled the transaction on {self.path!r} back after an error; "
            "nothing of it was kept"
        )

    def now_ms(self, clock: Clock) -> int:
        """Read the injected clock: SQLite has none of its own."""
        now_ms = clock.now_ms()
        if type(now_ms) is int and NO_SECONDS <= now_ms <= MAX_INT:
            return now_ms
        return check_now(now_ms)

    def lacking(self, schema: Schema, *, adopt: bool) -> guard.Lacking:
        """Check the file as opening it does; return what is to be made."""
        return guard.look_again(self.own_cursor, schema, self.path, self._compared, adopt=adopt)

    def further_cursor(self, schema: Schema, scope: str, key: object = None) -> StoreCursor:  # noqa: ARG002 # reason: its Tx sets the scope, and there is one lock
        """Open one more cursor on this transaction, once the database holds `schema`."""
        there = shared(schema, self.prefix) if self.prefix else schema
        wanted = declared_with(there, self._settings)
        writes = self._begun_by == dialect.BEGIN_WRITE
        try:
            noted = self._compared
            guard.hold(
                self.own_cursor, wanted, self.path, noted, compared_in_it=noted, writes=writes
            )
        except sqlite3.Error as error:
            raise store_error(error, self) from error
        return open_cursor(self, self.prefix)

    def _taking_consumers(self) -> Iterator[Connection]:
        while self._consumers:
            yield self._consumers.popitem()[1]

    def _disconnect(self, how: str) -> None:
        try:
            for consumer in self._taking_consumers():
                tx_connection.disconnect(consumer, self, commit=how == dialect.COMMIT)
        except BaseException:
            self.end(dialect.ROLLBACK)  # and the others are disconnected with it
            raise

    def _close_cursors(self) -> None:
        for reference in self._cursors:
            cursor = reference()
            if cursor is not None:
                cursor.close()
        self._cursors.clear()

    @property
    def consumer_dialect(self) -> Dialect:
        """What a consumer's statements are compiled for."""
        return dialect.dialect_for(self.prefix)

    def dispose(self) -> None:
        """Close the connection for good; a consumer's ``close()`` is refused."""
        self.engine = None
        with suppress(sqlite3.ProgrammingError):  # it is closed: an interrupt left it on the list
            self.own_cursor.close()  # a statement left on it would keep the file open
        sqlite3.Connection.close(self)

    def admit(self, sql: str) -> None:
        """Refuse a consumer's statement that would end the transaction; note what it sets."""
        if not dialect.is_of_rows(sql):
            dialect.check_no_control(sql)
            self.changed.note(sql)

    # What follows is what SQLAlchemy, or a consumer past it, calls.

    def cursor(self, factory: Any = GuardedCursor) -> Any:  # noqa: ARG002 # reason: the driver's signature
        """Open a cursor inside the current transaction; it is a :class:`GuardedCursor`."""
        self.check_usable()
        cursor = sqlite3.Connection.cursor(self, GuardedCursor)
        self._cursors.append(weakref.ref(cursor))
        return cursor

    def execute(self, *args: Any) -> sqlite3.Cursor:
        """Execute inside the current transaction."""
        return cast("sqlite3.Cursor", self.cursor().execute(*args))

    def executemany(self, *args: Any) -> sqlite3.Cursor:
        """Execute for each parameter set inside the current transaction."""
        return cast("sqlite3.Cursor", self.cursor().executemany(*args))

    def executescript(self, *_: Any) -> NoReturn:
        """Refuse: it would commit first."""
        self.refuse("executescript()")

    def close(self) -> NoReturn:
        """Refuse: the store closes."""
        self.refuse("close()")

    def __exit__(self, *_: object) -> NoReturn:
        self.refuse("leaving a with block")

    def set_authorizer(self, *_: Any) -> NoReturn:
        """Refuse: it would hold for the store's own statements as well."""
        self.refuse("set_authorizer()")

    def deserialize(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse: it would replace the database."""
        self.refuse("deserialize()")

    @property
    def isolation_level(self) -> None:
        """None: the driver begins nothing by itself."""
        return None

    @isolation_level.setter
    def isolation_level(self, _: object) -> NoReturn:
        # The driver commits when this is set to None.
        self.refuse("setting isolation_level")

    @property
    def autocommit(self) -> int:
        """-1, as ``sqlite3.LEGACY_TRANSACTION_CONTROL``: the driver's own control is off."""
        return -1

    @autocommit.setter
    def autocommit(self, _: object) -> NoReturn:
        # From Python 3.12 on, the driver commits when this is set to True.
        self.refuse("setting autocommit")
