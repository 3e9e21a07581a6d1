"""What every store's transaction class has: the clock's one reading, the connection, its end."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, Self, TypeVar

import msgspec
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, StatementError

from lash_store._kernel.backend import Cursor, KeyLocks, OpenTransaction, Standing
from lash_store._kernel.checks import check_has
from lash_store._kernel.logs import taken_over
from lash_store._kernel.schema import Schema
from lash_store._kernel.signals import is_from_handler
from lash_store._kernel.watching import ANYTHING, Concern
from lash_store.clock import Clock, IdSource, RandomIds, SystemClock
from lash_store.errors import InvalidRecordError, LashStoreError, TransactionEndedError

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

_WITH_ALL: Final = nullcontext()
"""A block that is undone with everything else, or not at all; it holds nothing, so one is enough."""


class Context(msgspec.Struct, frozen=True):
    """What every transaction of one store shares."""

    clock: Clock
    ids: IdSource

    scope: str = ""
    """Whose rows it is about, where a database holds many sessions."""


def sources(clock: Clock | None, ids: IdSource | None) -> tuple[Clock, IdSource]:
    """Return the clock and the ids of a Tx that joins; InvalidRecordError for what is none of it."""
    if clock is not None:
        check_has("clock", clock, "now_ms")
    if ids is not None:
        check_has("ids", ids, "new_token")
    return clock or SystemClock(), ids or RandomIds()


ContextT_co = TypeVar("ContextT_co", bound=Context, covariant=True)


class Tx(Generic[ContextT_co]):
    """A transaction of one store that is open; the operations are functions of it.

    Made by ``store.begin()`` and ``store.read()``, or by ``on()`` over a consumer's own
    connection. Usable until that transaction ends; after that, TransactionEndedError.
    """

    __slots__ = (
        "__weakref__",
        "_cursor",
        "context",
        "now_ms",
        "operation",
        "transaction",
    )

    schema: ClassVar[Schema]
    in_its_file: ClassVar[Concern]
    """What it concerns in a file of its own kind."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "schema" in vars(cls):
            cls.in_its_file = (cls.schema.kind, "", None)

    context: ContextT_co
    """What every transaction of the store shares."""

    now_ms: int
    """The clock's one reading in this transaction, in milliseconds since the epoch."""

    operation: str | None
    """The one operation that this transaction is for, so that its failure ends both; else None."""

    transaction: OpenTransaction | None
    """What this Tx stands on; None once it is over."""

    def __init__(
        self, context: ContextT_co, transaction: OpenTransaction, operation: str | None = None
    ) -> None:
        self.context = context
        self.now_ms = transaction.now_ms(context.clock)
        self.operation = operation
        self._cursor = transaction.own_cursor
        self._cursor.scope = context.scope
        self.transaction = transaction
        # In a file all sessions that are named have one head, one graph, one queue.
        transaction.touched.add(
            (self.schema.kind, context.scope, None) if transaction.is_shared else self.in_its_file
        )
        transaction.standing = self

    def _read_time_again(self) -> None:
        """Read the clock once more, for one operation alone: it has waited in the midst of its transaction."""
        if self.operation is not None:
            self.now_ms = self.current.now_ms(self.context.clock)

    @property
    def cursor(self) -> Cursor:
        """A cursor for prepared statements; raises once the transaction is over, or elsewhere.

        So does all that is done with it, which can't end the transaction (K-TX-7), and concerns
        everybody who waits (K-WAIT-1).
        """
        cursor = TxCursor(self)
        self.current.touched.add(ANYTHING)
        return cursor

    @property
    def own_cursor(self) -> Cursor:
        """The same for the library's own operations, which say what they touch.

        Asked for again by every operation: a database itself rolls a transaction back on some
        errors, and what runs after that would commit by itself, statement by statement.
        """
        transaction = self.transaction
        if transaction is None:
            raise _over()
        if not transaction.in_transaction:
            if isinstance(transaction, _Same) and transaction.is_over:
                raise _over()
            raise TransactionEndedError("the database rolled this transaction back after an error")
        transaction.check_thread()
        return self._cursor

    @property
    def current(self) -> OpenTransaction:
        """What it stands on; TransactionEndedError once that is over."""
        if self.transaction is None:
            raise _over()
        return self.transaction

    @property
    def key_locks(self) -> KeyLocks | None:
        """Locks on single things; None if nobody else writes to what it is about before it ends."""
        return self.current.key_locks

    @property
    def connection(self) -> Connection:
        """A SQLAlchemy Connection on this transaction, for the consumer's own statements.

        It can't end the transaction: commit, rollback and close are refused (K-TX-7).
        """
        _ = self.own_cursor  # raises once the transaction is over
        return self.current.consumer_connection(self.context.scope)

    def orm(self, **options: Any) -> "Session":
        """Return an ORM Session on this transaction (K-TX-13); `options` are its own.

        It stands on a savepoint, set by its first statement, and what it commits is committed, or not, with the
        transaction. Its rollback, and its end without a commit, undo all that was written since that first
        statement, by this Tx as well: commit it before, and close it inside: ``with tx.orm() as orm:``.
        """
        from sqlalchemy.orm import Session  # noqa: PLC0415 # reason: slow to import, and most never do

        options.setdefault("join_transaction_mode", "create_savepoint")
        return Session(self.connection, **options)

    def touch(self, key: str) -> None:
        """Note that something was changed for which somebody may wait by its name."""
        current = self.current
        current.touched.add(
            (self.schema.kind, self.context.scope if current.is_shared else "", key)
        )

    def note_takeover(self, what: str, key: str, before: str | None, now: str) -> None:
        """Have it logged, once this is committed, that `now` has what `before` did not give back."""
        current = self.current
        current.notes.append(taken_over(current.path, what, key, before, now))

    def all_or_nothing(self) -> AbstractContextManager[None]:
        """Undo what the block wrote if an exception leaves it, though the transaction goes on.

        For operations of several writes: a consumer may catch their error inside ``begin()``.
        """
        if self.operation is not None:
            return _WITH_ALL  # the whole transaction is rolled back
        return self._savepoint()

    @contextmanager
    def _savepoint(self) -> Iterator[None]:
        cursor, current = self.own_cursor, self.current
        notes, outer = current.notes, current.savepoints
        noted = len(notes)
        # A name for each depth: one that was set though its statement failed must not be taken for an
        # outer one, or what was written before it would stay.
        name = f"lash_store_{len(outer) + 1}"
        outer.append(name)
        try:
            _execute(cursor, f"SAVEPOINT {name}")
            try:
                yield
            except BaseException as error:
                transaction = self.transaction
                if transaction is not None and transaction.in_transaction:
                    _go_back(cursor, name, error)
                    del notes[noted:]
                raise
            # Not in that `try`: an interrupt behind it would have nothing to go back to.
            _execute(cursor, f"RELEASE SAVEPOINT {name}")
        finally:
            outer.remove(name)

    @classmethod
    def _on_same(cls, tx: "Tx[Any]", context: Any) -> Self:
        """Stand on the transaction of another Tx: with its time, and until its end."""
        _ = tx.own_cursor  # raises once it is over
        return cls(context, _Same(tx, cls.schema, context.scope))

    def abandon(self) -> None:
        """End this Tx without touching its transaction; every further use is refused."""
        self.transaction = None


def _go_back(cursor: Cursor, name: str, error: BaseException) -> None:
    """Undo what came behind a savepoint, as `error` leaves it.

    An interrupt that struck in a statement of a server's leaves a connection that takes none, and can't commit
    either: what is raised is the interrupt all the same.
    """
    try:
        _execute(cursor, f"ROLLBACK TO SAVEPOINT {name}")
        _execute(cursor, f"RELEASE SAVEPOINT {name}")
    except LashStoreError:
        if isinstance(error, LashStoreError):
            raise


class TxCursor:
    """A consumer's cursor on a Tx, for prepared statements: inside that, in its thread, or not at all."""

    __slots__ = ("_admit", "_cursor", "_tx", "driver", "scope")

    def __init__(self, tx: Tx[Any]) -> None:
        self._tx = tx
        self._cursor = tx.own_cursor
        self._admit = tx.current.admit
        self.driver = self._cursor.driver
        self.scope = self._cursor.scope

    @property
    def connection(self) -> Any:
        """The driver's connection."""
        return self._cursor.connection

    @property
    def path(self) -> str | None:
        """What the database is called, where the connection doesn't say."""
        return getattr(self._cursor, "path", None)

    @property
    def rowcount(self) -> int:
        """How many rows the last statement has changed."""
        return self._tx.own_cursor.rowcount

    def execute(self, sql: str, *parameters: Any) -> Self:
        """Execute one statement."""
        self._do("execute", sql, *parameters)
        return self

    def executemany(self, sql: str, rows: Iterable[Any], /) -> Self:
        """Execute one statement for each row of parameters."""
        self._do("executemany", sql, rows)
        return self

    def fetchall(self) -> list[Any]:
        """Return every row of the last statement."""
        return self._tx.own_cursor.fetchall()

    def later(self, sql: str, parameters: Any, /) -> None:
        """Execute one statement, whose answer nobody waits for."""
        self._do("later", sql, parameters)

    def later_many(self, sql: str, rows: Iterable[Any], /) -> None:
        """Do so for each row of parameters."""
        self._do("later_many", sql, rows)

    def ask(self, sql: str, parameters: Any, /) -> Callable[[], list[Any]]:
        """Execute one statement; return what gives its rows."""
        rows: Callable[[], list[Any]] = self._do("ask", sql, parameters)
        return rows

    def close(self) -> None:
        """Do nothing: it closes with its transaction."""

    def _do(self, how: str, sql: str, *given: Any) -> Any:
        cursor = self._tx.own_cursor
        self._admit(sql)
        try:
            return getattr(cursor, how)(sql, *given)
        except (OverflowError, UnicodeEncodeError) as error:  # of Python's: no driver sends it
            raise InvalidRecordError("parameters", "of a statement", str(error)) from error


class _Same:
    """The transaction of a Tx, as one more Tx stands on it."""

    def __init__(self, tx: Tx[Any], schema: Schema, scope: str) -> None:
        self._tx, self._transaction = tx, tx.current
        beneath = self._transaction
        self.own_cursor = beneath.further_cursor(schema, scope)
        self.standing: Standing | None = None
        self.touched = beneath.touched
        self.notes = beneath.notes
        self.savepoints = beneath.savepoints
        self.path = beneath.path
        self.is_shared = beneath.is_shared
        self.key_locks = beneath.key_locks
        self.check_thread = beneath.check_thread
        self.admit = beneath.admit
        self.consumer_connection = beneath.consumer_connection
        self.further_cursor = beneath.further_cursor

    @property
    def is_over(self) -> bool:
        """Whether it has ended: the next one on the same connection is not this one."""
        return self._tx.transaction is not self._transaction

    @property
    def in_transaction(self) -> bool:
        """Whether it is still open."""
        return not self.is_over and self._transaction.in_transaction

    def now_ms(self, _: Clock) -> int:
        """Return the time of the transaction, which was read once."""
        return self._tx.now_ms


@contextmanager
def explained_on(tx: Tx[Any]) -> Iterator[None]:
    """Say as every operation does what befalls a statement of the library's own on ``tx.connection``."""
    cursor = (
        tx.own_cursor
    )  # asked for later, it would say that the transaction has ended, and not why
    try:
        yield
    except StatementError as error:
        cause: Any = error.orig
        if cause is not None and is_from_handler(cause):
            raise cause from None
        if not isinstance(error, DBAPIError):
            raise
        raise cursor.driver.explain(cause, cursor) from error


def _over() -> TransactionEndedError:
    return TransactionEndedError(
        "this transaction has ended, or belongs to the process that forked this one"
    )


def _execute(cursor: Cursor, statement: str) -> None:
    driver: Any = cursor.driver
    try:
        cursor.execute(statement)
    except driver.error as error:
        raise driver.explain(error, cursor) from error
