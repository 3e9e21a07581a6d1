"""``tx.connection``: a SQLAlchemy Connection on a transaction that the store owns (K-TX-7).

It stands on the store's own DBAPI connection, so the consumer's statements and the store's
are one transaction. Everything works on it that does not end that transaction: savepoints,
an ORM Session, streaming results, errors that are caught and passed over.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from threading import get_ident
from traceback import walk_tb
from typing import TYPE_CHECKING, Any, NoReturn

from sqlalchemy import URL, Connection, Dialect, Engine, event, make_url
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.pool import StaticPool

from lash_store._backends.orm_sessions import watch_sessions
from lash_store._kernel.sharing import SCOPE_OPTION
from lash_store._kernel.watching import ANYTHING, Concern
from lash_store.errors import (
    LashStoreError,
    ThreadError,
    TransactionControlError,
    TransactionEndedError,
)

ExplainOwn = Callable[[BaseException, str, str], LashStoreError | None]
"""Returns the error of ours that explains one of a driver's, of a database with a name and a prefix."""


class OwnedConnection:
    """A driver's connection whose transactions only the store begins and ends (K-TX-7); a mix-in.

    What a consumer reaches through ``tx.connection`` is refused to end the transaction, to run outside
    one, in another thread, or in a forked child.
    """

    path: str
    prefix: str
    """What the names of our tables begin with, in a database that is shared; else nothing."""

    pid: int
    engine: Engine | None
    """The engine that its consumer's Connections stand on, made when one is first asked for."""

    touched: set[Concern]
    """What the current transaction may have changed, or has looked at."""

    if TYPE_CHECKING:
        in_transaction: Any

        @staticmethod
        def explain_own(error: BaseException, path: str, prefix: str) -> LashStoreError | None:
            """See :data:`ExplainOwn`."""

        @property
        def consumer_dialect(self) -> Dialect:
            """What its consumer's statements are compiled for."""

    _consumers: dict[str, Connection]
    """The consumers' Connections on the current transaction, by whose rows they are about."""

    _letting_go: bool
    _thread: int
    """Who has begun the current transaction."""

    def own(self, path: str, prefix: str) -> None:
        """Take charge of this connection, just opened."""
        self.path, self.prefix, self.pid = path, prefix, os.getpid()
        self.engine, self.touched, self._consumers = None, set(), {}
        self._letting_go, self._thread = False, get_ident()

    def consumer_connection(self, scope: str) -> Connection:
        """Return a SQLAlchemy Connection on this transaction, the same until it ends."""
        self.touched.add(ANYTHING)
        found = self._consumers.get(scope)
        if found is None or not is_usable(found):
            if found is not None:
                disconnect(found, self)
            found = self._consumers[scope] = connect(self, scope, self.explain_own)
        return found

    def check_thread(self) -> None:
        """Raise ThreadError in any thread but the one that began the transaction."""
        if self._thread != get_ident():
            raise ThreadError(self._thread, get_ident())

    def check_usable(self) -> None:
        """Raise TransactionEndedError outside a transaction, and in a forked child."""
        if self.pid != os.getpid():
            raise TransactionEndedError(
                f"the transaction on {self.path!r} belongs to process {self.pid}, which forked this one"
            )
        self.check_thread()
        if not self.in_transaction:
            raise TransactionEndedError(f"the transaction on {self.path!r} has ended")

    @contextmanager
    def letting_go(self) -> Iterator[None]:
        """Ignore, instead of refusing, the rollback with which SQLAlchemy closes a Connection."""
        self._letting_go = True
        try:
            yield
        finally:
            self._letting_go = False

    # What follows is what SQLAlchemy, or a consumer past it, calls.

    def commit(self) -> None:
        """Refuse: the store commits. Outside a transaction there is nothing to end."""
        if self.in_transaction and not self._letting_go:
            self.refuse("commit()")

    def rollback(self) -> None:
        """Refuse: the store rolls back. Outside a transaction there is nothing to end."""
        if self.in_transaction and not self._letting_go:
            self.refuse("rollback()")

    def refuse(self, what: str) -> NoReturn:
        """Raise TransactionControlError: `what` would end the transaction."""
        raise TransactionControlError(
            f"{what} on a connection of the store {self.path!r}: the store ends its own "
            "transaction, by leaving begin() or read(); nothing was changed"
        )


class TransactionConnection(Connection):
    """A Connection that can't end the transaction it stands on: the store does that."""

    def commit(self) -> NoReturn:
        """Refuse: leaving ``begin()`` commits."""
        _refuse("commit()")

    def rollback(self) -> NoReturn:
        """Refuse: an exception that leaves ``begin()`` rolls back."""
        _refuse("rollback()")

    def close(self) -> NoReturn:
        """Refuse: leaving ``begin()`` or ``read()`` closes it."""
        _refuse("close()")

    def invalidate(self, exception: BaseException | None = None) -> None:
        """Refuse: it would close the store's connection.

        SQLAlchemy itself does it if an interrupt strikes in a statement, and says which. That is on
        its way to the consumer, and the transaction is rolled back by it: nothing is to be done.
        """
        if exception is None:
            _refuse("invalidate()")

    def in_nested_transaction(self) -> bool:
        """Whether it is in a savepoint, as an ORM Session asks before it joins: it is to set one.

        For the transaction itself would refuse what such a Session rolls back (K-TX-13).
        """
        return True

    def _handle_dbapi_exception(self, e: BaseException, *args: Any, **options: Any) -> NoReturn:
        """Raise what explains `e`: if that is an error of ours, as it was.

        SQLAlchemy raises it from itself, and who goes along its causes would never come to an end.
        """
        cause, is_plain = e.__cause__, not e.__suppress_context__
        try:
            super()._handle_dbapi_exception(e, *args, **options)
        finally:
            if e.__cause__ is e:
                e.__cause__ = cause
                e.__suppress_context__ = not is_plain

    def detach(self) -> NoReturn:
        """Refuse: the connection is the store's."""
        _refuse("detach()")


def connect(raw: OwnedConnection, scope: str, explain_own: ExplainOwn) -> TransactionConnection:
    """Open the consumer's Connection on `raw`, inside the transaction that is open on it.

    In a shared database, what it says of session tables is about `scope`.
    """
    if raw.engine is None:
        raw.engine = _engine(raw, explain_own)
    if raw.prefix:
        watch_sessions()
    with (
        raw.letting_go()
    ):  # what a signal's handler raises in here SQLAlchemy answers by a rollback
        connection = TransactionConnection(raw.engine)
        if raw.prefix:
            connection.execution_options(**{SCOPE_OPTION: scope})
        # Begun, so that an ORM Session joins this transaction instead of owning it.
        connection.begin()
    return connection


def is_usable(connection: Connection | None) -> bool:
    """Whether SQLAlchemy still lets `connection` execute.

    It does not once ``commit()`` was refused on the Transaction object rather than here.
    """
    if connection is None:
        return False
    transaction = connection.get_transaction()
    return transaction is None or transaction.is_active


def disconnect(connection: Connection, raw: OwnedConnection, *, commit: bool = False) -> None:
    """Close it, before the transaction ends: any later use of it is an error.

    SQLAlchemy's events and its log say of it what becomes of the transaction: ``commit``, which it
    too tells of before the COMMIT, or ``rollback``.
    """
    transaction = connection.get_transaction()
    try:
        with raw.letting_go():
            try:
                is_open = transaction is not None and transaction.is_active
                if commit and is_open and connection.connection.dbapi_connection is not None:
                    Connection.commit(connection)
            finally:
                Connection.close(connection)
    except AssertionError as error:
        struck = _struck(error)
        if struck is None:
            raise
        raise struck from None


def _struck(error: AssertionError) -> BaseException | None:
    """Return the interrupt whose place an assertion of SQLAlchemy's has taken: it states what that has skipped."""
    *_, (frame, _) = walk_tb(error.__traceback__)
    before = error.__context__
    trace = None if before is None else before.__traceback__
    return before if trace is not None and trace.tb_frame is frame else None


def _engine(raw: OwnedConnection, explain_own: ExplainOwn) -> Engine:
    """Make an engine over this one connection; it lives as long, so its compile cache does too."""
    dialect = raw.consumer_dialect
    prepare = dialect.on_connect()
    if prepare is not None:
        prepare(raw)  # the functions that SQLAlchemy's dialect counts on, such as REGEXP
    # No reset on return: it would be a rollback. The dialect is initialised already, so the
    # first connect does not roll back either.
    pool = StaticPool(_creator(raw), reset_on_return=None, dialect=dialect)
    # Parameters stay out of errors: a fence's token is among those of a fenced statement.
    engine = Engine(pool, dialect, make_url(f"{dialect.name}://"), hide_parameters=True)
    event.listen(dialect, "handle_error", explaining(explain_own))
    return engine


def _creator(raw: OwnedConnection) -> Callable[[], Any]:
    return lambda: raw


def _database_of(url: URL) -> str:
    return str(url.database)


@cache  # what a dialect, of many engines, listens with is one thing: else each connection would leave one there
def explaining(
    explain_own: ExplainOwn, name_of: Callable[[URL], str] = _database_of
) -> Callable[[ExceptionContext], None]:
    """Return what makes SQLAlchemy raise our own errors in the place of a driver's.

    `name_of` says what the database of a consumer's own engine is called.
    """

    def explain(context: ExceptionContext) -> None:
        error = context.original_exception
        if isinstance(error, LashStoreError):
            raise error  # SQLAlchemy would wrap a refusal of ours in an error of its own
        connection = context.connection
        is_there = connection is not None and not connection.invalidated
        raw: Any = connection.connection.dbapi_connection if connection and is_there else None
        path = getattr(raw, "path", None) or (
            "the database" if context.engine is None else name_of(context.engine.url)
        )
        sharing = getattr(context.dialect, "sharing", None)
        own = explain_own(error, path, "" if sharing is None else sharing.prefix)
        if own is not None:
            raise own from error

    return explain


def _refuse(what: str) -> NoReturn:
    raise TransactionControlError(
        f"{what} on tx.connection: the store ends its own transaction, by leaving begin() or "
        "read(); nothing was changed"
    )
