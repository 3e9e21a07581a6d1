"""What a store's handle is on every backend: its rights, its end, and what it asks in a snapshot."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from lash_store._kernel.checks import shown
from lash_store._kernel.options import Settings
from lash_store._kernel.schema import Schema
from lash_store.errors import (
    InvalidRecordError,
    LashStoreError,
    ReadOnlyStoreError,
    StoreBusyError,
    StoreClosedError,
)

if TYPE_CHECKING:
    from lash_store._kernel.calls import Call
    from lash_store._kernel.watching import Waiter

D = TypeVar("D", bound=Any)
R = TypeVar("R")


class BaseHandle(ABC, Generic[D]):
    """One store's access to a database that it may share with others; usable from any thread."""

    make_tx: Callable[..., Any]
    """Makes a Tx of an open transaction and the operation's name, or None: the store says how."""

    driver_error: ClassVar[type[Exception]]
    """What the driver raises."""

    def __init__(self, database: D, schema: Schema, settings: Settings) -> None:
        self.database = database
        self.schema = schema
        self.settings = settings
        self.path: str = database.path
        self.closed = False
        self.budget_s = settings.busy_timeout_ms / 1000
        self._is_reader = settings.read_only

    def closed_error(self) -> StoreClosedError:
        """Return the error of a call on a store that was closed."""
        return StoreClosedError(self.path)

    def check_there(self) -> None:
        """See ``Handle``."""

    def busy_error(self, since_s: float, in_line: Call | None = None) -> StoreBusyError:
        """Return the error of a call that was submitted at `since_s` and has spent its budget, `in_line` if it came no further."""
        error: StoreBusyError = self.database.busy_error(since_s, in_line)
        return error

    def ask(self, waiters: Sequence[Waiter]) -> None:
        """Ask those who wait, in one snapshot, whether there may be something; tell those for whom there is."""

        def look(connection: Any) -> None:
            for waiter in waiters:
                try:
                    may_have = waiter.probe is None or waiter.probe(connection)
                except Exception:  # noqa: BLE001 # reason: it finds that out again by itself
                    may_have = True
                if may_have:
                    waiter.notify()

        try:
            self._look("wait", look)
        except LashStoreError:
            for waiter in waiters:
                waiter.notify()  # each finds out for itself

    def check_schema(self) -> None:
        """Raise SchemaVersionError or SchemaDriftError unless the tables are as declared."""
        self._look("check_schema", self._compare)

    def submit_check_schema(self) -> Awaitable[Any]:
        """Do the same for an event loop."""
        return self.submit_read(
            "check_schema", lambda tx: self._looked(self._compare, tx.transaction)
        )

    def undeclared_extras(self) -> tuple[str, ...]:
        """Return what an application has added to our tables and not declared, as text."""
        return self._look("undeclared_extras", self._undeclared)

    def _look(self, operation: str, look: Callable[[Any], R]) -> R:
        """Look at the database itself, in a snapshot."""
        hold = self.new_hold()
        connection = self.begin_read(hold, operation)
        try:
            return self._looked(look, connection)
        finally:
            self.end_read(hold, connection)

    def _looked(self, look: Callable[[Any], R], connection: Any) -> R:
        try:
            return look(connection)
        except self.driver_error as error:
            raise self.explain(error, connection) from error

    def _check_all_here(self, handles: Iterable[BaseHandle[D]]) -> None:
        for handle in handles:
            if handle.database is not self.database:
                raise InvalidRecordError(
                    "calls", shown(handle.path), f"must all be on {self.path!r}"
                )

    def _check_open(self) -> None:
        if self.closed:
            raise self.closed_error()

    def _check_writable(self) -> None:
        self._check_open()
        if self._is_reader:
            raise ReadOnlyStoreError(self.path)

    # What each backend does in its own way.

    @staticmethod
    @abstractmethod
    def new_hold() -> Any:
        """Make what holds a snapshot of the library's own."""

    @staticmethod
    @abstractmethod
    def explain(error: Any, connection: Any) -> LashStoreError:
        """Return the error of ours that explains one of the driver's."""

    @abstractmethod
    def begin_read(self, hold: Any, operation: str | None = None) -> Any:
        """Begin a snapshot, a consumer's or for an operation; end it with :meth:`end_read`."""

    @abstractmethod
    def end_read(self, hold: Any, connection: Any) -> None:
        """End a snapshot."""

    @abstractmethod
    def submit_read(
        self,
        operation: str | None,
        work: Callable[[Any], Any],
        *,
        write_instead: tuple[str, Callable[[Any], Any]] | None = None,
    ) -> Awaitable[Any]:
        """Do `work` in a snapshot, for an event loop; if it finds nothing, the write instead."""

    @abstractmethod
    def _compare(self, connection: Any) -> None:
        """Raise unless the tables are as declared."""

    @abstractmethod
    def _undeclared(self, connection: Any) -> tuple[str, ...]:
        """Return what has been added to our tables."""
