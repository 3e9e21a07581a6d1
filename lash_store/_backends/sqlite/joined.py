"""A consumer's transaction on SQLite, as one Tx stands on it (K-TX-8)."""

from collections.abc import Callable
from threading import get_ident

from sqlalchemy import Connection

from lash_store._backends.sqlite import dialect
from lash_store._backends.sqlite.begun import Begun
from lash_store._backends.sqlite.driver import StoreCursor
from lash_store._kernel.backend import Standing
from lash_store._kernel.checks import check_now
from lash_store._kernel.schema import Schema
from lash_store._kernel.watching import Concern
from lash_store.clock import Clock
from lash_store.errors import ThreadError


class JoinedTransaction:
    """A consumer's transaction, as one Tx stands on it."""

    key_locks: None = None

    def __init__(
        self,
        begun: Begun,
        connection: Connection,
        held: Callable[[Schema, str], StoreCursor],
        cursor: StoreCursor,
    ) -> None:
        self.own_cursor = cursor
        self.standing: Standing | None = None
        self.is_shared = bool(begun.sharing.prefix)
        self.touched: set[Concern] = set()  # which nobody hears of: it is seen as another's commit
        self.notes = begun.notes
        self.savepoints = begun.savepoints
        self.path = cursor.path
        self._begun = begun
        self._held = held
        self._connection = connection
        self._thread = get_ident()

    @property
    def in_transaction(self) -> bool:
        """Whether it is still open."""
        return not self._begun.is_over

    def further_cursor(self, schema: Schema, scope: str, key: object = None) -> StoreCursor:  # noqa: ARG002 # reason: there is one lock
        """Open one more cursor on this transaction, once the database holds `schema`."""
        return self._held(schema, scope)

    def check_thread(self) -> None:
        """Raise ThreadError in any thread but the one that joined it."""
        if self._thread != get_ident():
            raise ThreadError(self._thread, get_ident())

    def admit(self, sql: str) -> None:
        """Raise TransactionControlError for a statement that would end it."""
        if not dialect.is_of_rows(sql):
            dialect.check_no_control(sql)

    def now_ms(self, clock: Clock) -> int:
        """Read the injected clock: SQLite has none of its own."""
        return check_now(clock.now_ms())

    def consumer_connection(self, scope: str) -> Connection:  # noqa: ARG002 # reason: it has its own
        """Return the consumer's own Connection."""
        return self._connection
