"""The seam: what an open database does for the stores that stand on it.

The stores, their operations and their statements know these protocols and nothing beneath
them. Each folder of ``lash_store._backends`` is one implementation; what differs between
databases (how a transaction begins and for whom, the clock, where the version stands, how a
driver names its errors) is told apart there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from sqlalchemy import Connection, Dialect, Table

from lash_store._kernel.calls import Call
from lash_store._kernel.logs import Note
from lash_store._kernel.options import Settings
from lash_store._kernel.schema import Schema
from lash_store._kernel.watching import Concern, Waiter, Watch
from lash_store.clock import Clock
from lash_store.errors import LashStoreError

if TYPE_CHECKING:
    # Slow to import, and most never do.
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
    from sqlalchemy.orm import Session, scoped_session

    Joinable: TypeAlias = (
        Connection
        | Session
        | scoped_session[Any]
        | AsyncConnection
        | AsyncSession
        | async_scoped_session[Any]
    )
    """What has a transaction of a consumer's own, which a Tx can join."""


class Cursor(Protocol):
    """A DBAPI cursor of a backend's own class, which says whose it is."""

    @property
    def driver(self) -> Driver:
        """What statements are compiled for, to run on this cursor."""

    @property
    def connection(self) -> Any:
        """The driver's connection."""

    @property
    def rowcount(self) -> int:
        """How many rows the last statement has changed."""

    scope: str
    """Whose rows a statement on scoped tables is about; see ``sharing``."""

    def execute(self, sql: str, parameters: Any = ..., /) -> Any:
        """Execute one statement."""

    def executemany(self, sql: str, rows: Iterable[Any], /) -> Any:
        """Execute one statement for each row of parameters."""

    def fetchall(self) -> list[Any]:
        """Return every row of the last statement."""

    # What needs no answer at once: behind a wire it is sent with the next statement that does.

    def later(self, sql: str, parameters: Any, /) -> object:
        """Execute one statement by then, whose answer nobody waits for."""

    def later_many(self, sql: str, rows: Iterable[Any], /) -> object:
        """Do so for each row of parameters."""

    def ask(self, sql: str, parameters: Any, /) -> Callable[[], list[Any]]:
        """Execute one statement by then; return what gives its rows."""


class Statement(Protocol):
    """A statement that was compiled, as far as an error of it can be explained by that."""

    @property
    def sql(self) -> str:
        """The text that the driver gets."""

    @property
    def writes(self) -> bool:
        """Whether it changes anything."""

    def column(self, which: int | str) -> tuple[str, str]:
        """Return the table and the name of a column of its rows, by place or by name."""
        ...

    def is_text(self, at: int) -> bool:
        """Whether a column of its rows is text."""
        ...

    def key_of(self, row: Sequence[Any] | None, values: Sequence[Any]) -> str:
        """Return the key of what it reads, of one of its rows or by its arguments; "?" if unknown."""
        ...


class Driver(Protocol):
    """What preparing a statement needs to know of a driver."""

    @property
    def dialect(self) -> Dialect:
        """What statements are compiled for; it knows how tables are laid out and scoped."""

    @property
    def error(self) -> type[Exception]:
        """The root of the driver's exceptions."""

    @property
    def number_types(self) -> Mapping[type, int]:
        """By the types that it gives for numbers, what a server calls those; none where there is one way."""

    def explain(
        self,
        error: Exception,
        cursor: Cursor,
        statement: Statement | None = None,
        values: Sequence[Any] = (),
    ) -> LashStoreError:
        """Return the error of ours that says what the driver's means, to be raised from it.

        Of a prepared statement with its values, where it is one.
        """

    def refuses(self, error: Exception) -> bool:
        """Whether `error` is of the statement itself, which would fail again and elsewhere."""

    def plan(self, cursor: Cursor, sql: str, count: int) -> list[str]:
        """Return the database's plan for a statement with so many parameters, a line for each step.

        Steps inside others are indented.
        """
        ...

    def leniently(self, cursor: Cursor) -> AbstractContextManager[None]:
        """Read text that is no UTF-8 in this block, lone surrogates in the place of its bytes."""
        ...

    def continue_numbers(self, cursor: Cursor, table: Table[Any]) -> None:
        """Let the numbers that a table draws go on behind the highest that it has, after rows were copied."""

    def require_all_rows(self, cursor: Cursor) -> None:
        """Have it be an error, in this transaction, if its role is not shown all rows of a table."""


class Standing(Protocol):
    """Whoever stands on a transaction, and has to be told when it ends under them."""

    def abandon(self) -> None:
        """Refuse every further use, without touching the transaction."""


class KeyLocks(Protocol):
    """The locks on single things, of a transaction beside which others write."""

    def set_point(self) -> None:
        """Note what is locked so far."""

    def lock_if_free(self, schema: Schema, scope: str, key: tuple[str, ...]) -> Callable[[], bool]:
        """Have the thing of `key` alone until the end, if nobody else is about it; tells that when called.

        If somebody is, the rows that were locked since the point are locked no more: they may want one.
        """
        ...

    def wait_for(self, schema: Schema, scope: str, key: tuple[str, ...]) -> None:
        """Have the thing of `key` alone until the end, once who is about it has ended.

        What was locked since the point is let go of first, and what was read before may be out of date then:
        whoever asks looks again before it lets go. If all let go who wait for one thing, they would hand its
        lock round, and nobody would act on it. Not for who had a thing alone before the point.
        """

    def let_go(self) -> None:
        """Lock nothing any more that was locked since the point, before something else is asked for.

        Who keeps one thing while it waits for another may be waited for in a ring.
        """


class OpenTransaction(Protocol):
    """A transaction, or a snapshot, that is open: what a Tx stands on."""

    standing: Standing | None
    """Who stands on it."""

    is_shared: bool
    """Whether its database is shared by many sessions, each of which has rows of its own."""

    @property
    def key_locks(self) -> KeyLocks | None:
        """None if nobody else writes to what it is about before it ends; see ``locks``."""

    touched: set[Concern]
    """What it may have changed or looked at, for those who wait for commits."""

    notes: list[Note]
    """What is to be logged of it once it is committed."""

    savepoints: list[str]
    """Those of ``Tx.all_or_nothing`` that it is inside of."""

    path: str
    """What its database is called in messages."""

    @property
    def own_cursor(self) -> Cursor:
        """For prepared statements, each of which fetches all its rows at once."""

    @property
    def in_transaction(self) -> bool:
        """Whether it is still open: a database may roll one back by itself."""

    def further_cursor(
        self, schema: Schema, scope: str, key: tuple[str, ...] | None = None
    ) -> Cursor:
        """Return one more cursor, for another Tx on it, once it holds that Tx's schema.

        Where a database locks less than all of itself, it has the lock on the kind then, or of who
        looks at the thing of one `key` alone that on this.
        """
        ...

    def check_thread(self) -> None:
        """Raise ThreadError in any thread but the one that it belongs to."""

    def admit(self, sql: str) -> None:
        """Raise TransactionControlError for a consumer's statement that would end it.

        Of another it notes what is to be put right: what no rollback undoes, say.
        """

    def now_ms(self, clock: Clock) -> int:
        """Read the time that holds for this transaction: after its lock, once."""

    def consumer_connection(self, scope: str) -> Connection:
        """Return a SQLAlchemy Connection on this transaction, which can't end it (K-TX-7)."""


class Handle(Protocol):
    """One store's access to an open database, which it may share with others; from any thread."""

    make_tx: Callable[[Any, str | None], Any]
    """Makes a Tx of an open transaction and the operation's name: the store says how."""

    @property
    def path(self) -> str:
        """What the database is called in messages."""

    @property
    def key(self) -> str:
        """What tells the database from the others that this process has open."""

    @property
    def watch(self) -> Watch:
        """Who waits for commits."""

    @property
    def reads_in_turn(self) -> bool:
        """Whether a snapshot has to wait for a turn, as a transaction does."""

    @property
    def closed(self) -> bool:
        """Whether the handle was closed."""

    def read_clock(self, clock: Clock) -> int:
        """Return the time that a transaction would begin with now, without one, in milliseconds."""
        ...

    def write(
        self, operation: str | None, work: Callable[[Any], Any], *, by_itself: bool = False
    ) -> Any:
        """Do `work` in a write transaction, with what else waits, and return what it gives.

        `operation` names an operation of the library, whose work any thread may run; or None, for
        a consumer's. One that is to be `by_itself` is run on this thread.
        """

    def read(self, operation: str, work: Callable[[Any], Any]) -> Any:
        """Do `work` in a snapshot, and return what it gives."""

    def submit_write(
        self,
        operation: str | None,
        work: Callable[[Any], Any],
        *,
        alone: bool = False,
        is_kept: bool = False,
    ) -> Awaitable[Any]:
        """Do the same for an event loop: the work is in line when this returns.

        What `is_kept` is done even if its caller is cancelled before.
        """

    def submit_told(
        self,
        calls: Sequence[tuple[str, Callable[[Any], Any], float, Callable[[Call], None]]],
    ) -> None:
        """Let calls of the library's own stand in line: operation, work, budget in seconds, whom to tell.

        From any thread, and without waiting for anything.
        """

    def submit_read(
        self,
        operation: str | None,
        work: Callable[[Any], Any],
        *,
        write_instead: tuple[str, Callable[[Any], Any]] | None = None,
    ) -> Awaitable[Any]:
        """Do the same in a snapshot; if it finds nothing, and there is one, the write instead."""

    def write_together(
        self, calls: Sequence[tuple[Any, str | None, Callable[[Any], Any]]]
    ) -> list[Any]:
        """Do the calls of several handles in one transaction, in this order: for tests."""
        ...

    def ask(self, waiters: Sequence[Waiter]) -> None:
        """Ask those who wait, in one snapshot, whether there may be something; tell those for whom there is."""

    def begin_write(self, hold: Any) -> OpenTransaction:
        """Begin a consumer's write transaction on this thread.

        It lasts as long as `hold` lives, whatever an interrupt unwinds, or until
        :meth:`end_write`.
        """

    def end_write(self, hold: Any, transaction: Any, *, commit: bool) -> None:
        """Commit or roll back; whatever happens, the locks are free and nothing is half done."""

    def begin_read(self, hold: Any, operation: str | None = None) -> OpenTransaction:
        """Begin a snapshot, a consumer's or for an operation; end it with :meth:`end_read`."""

    def end_read(self, hold: Any, transaction: Any) -> None:
        """End a snapshot."""

    def check_not_writing(self) -> None:
        """Raise NestedTransactionError inside a write transaction of this thread."""

    def check_there(self) -> None:
        """Raise StoreLostError if what was opened is not where it was; a server's database is not asked for."""

    def check_schema(self) -> None:
        """Raise SchemaVersionError or SchemaDriftError unless it is as declared (K-GUARD-4)."""

    def undeclared_extras(self) -> tuple[str, ...]:
        """Return what an application has added to our tables and not declared, as text."""
        ...

    def submit_check_schema(self) -> Awaitable[Any]:
        """Do the same for an event loop."""
        ...

    def beside(self, schema: Schema, settings: Settings) -> Handle:
        """Open another handle on the same database."""
        ...

    def close(self) -> None:
        """Refuse what waits, and close the database with the last handle; idempotent."""
