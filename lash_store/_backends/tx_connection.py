"""``tx.connection``: a SQLAlchemy Connection on a transaction that the store owns (K-TX-7).

It stands on the store's own DBAPI connection, so the consumer's statements and the store's
are one transaction. Everything works on it that does not end that transaction: savepoints,
an ORM Session, streaming results, errors that are caught and passed over.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NoReturn, Protocol

from sqlalchemy import Connection, Dialect, Engine, event, make_url
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.pool import StaticPool

from lash_store._backends.orm_sessions import watch_sessions
from lash_store._backends.scoping import SCOPE_OPTION
from lash_store.errors import LashStoreError, TransactionControlError

ExplainOwn = Callable[[BaseException, str, str], LashStoreError | None]
"""Returns the error of ours that explains one of a driver's, of a database with a name and a prefix."""


class Owned(Protocol):
    """A DBAPI connection whose transactions the store begins and ends."""

    prefix: str
    """What the names of our tables begin with, in a database that is shared; else nothing."""

    @property
    def consumer_dialect(self) -> Dialect:
        """What its consumer's statements are compiled for."""

    engine: Engine | None
    """The engine that its consumer's Connections stand on, made when one is first asked for."""

    def letting_go(self) -> AbstractContextManager[None]:
        """Ignore, instead of refusing, the rollback with which SQLAlchemy closes a Connection."""


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

    def detach(self) -> NoReturn:
        """Refuse: the connection is the store's."""
        _refuse("detach()")


def connect(raw: Owned, scope: str, explain_own: ExplainOwn) -> TransactionConnection:
    """Open the consumer's Connection on `raw`, inside the transaction that is open on it.

    In a shared database, what it says of session tables is about `scope`.
    """
    if raw.engine is None:
        raw.engine = _engine(raw, explain_own)
    if raw.prefix:
        watch_sessions()
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


def disconnect(connection: Connection, raw: Owned, *, commit: bool = False) -> None:
    """Close it, before the transaction ends: any later use of it is an error.

    SQLAlchemy's events and its log say of it what becomes of the transaction: ``commit``, which it
    too tells of before the COMMIT, or ``rollback``.
    """
    transaction = connection.get_transaction()
    with raw.letting_go():
        try:
            is_open = transaction is not None and transaction.is_active
            if commit and is_open and connection.connection.dbapi_connection is not None:
                Connection.commit(connection)
        finally:
            Connection.close(connection)


def _engine(raw: Owned, explain_own: ExplainOwn) -> Engine:
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
    event.listen(engine, "handle_error", explaining(explain_own))
    return engine


def _creator(raw: Owned) -> Callable[[], Any]:
    return lambda: raw


def explaining(explain_own: ExplainOwn) -> Callable[[ExceptionContext], None]:
    """Return what makes SQLAlchemy raise our own errors in the place of a driver's."""

    def explain(context: ExceptionContext) -> None:
        error = context.original_exception
        if isinstance(error, LashStoreError):
            raise error  # SQLAlchemy would wrap a refusal of ours in an error of its own
        raw: Any = context.connection and context.connection.connection.dbapi_connection
        path = getattr(raw, "path", None) or str(context.engine and context.engine.url.database)
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
