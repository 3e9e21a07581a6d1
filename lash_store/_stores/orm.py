"""An ORM Session on a Tx; by itself, since SQLAlchemy's ORM is slow to import, and most never do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.orm import Session

from lash_store.errors import TransactionError

if TYPE_CHECKING:
    from types import TracebackType

    from lash_store._stores.tx import Tx


class TxSession(Session):
    """A Session on a savepoint, which must not undo in silence what the Tx has written behind that (K-TX-13)."""

    def __init__(self, tx: Tx[Any], **options: Any) -> None:
        super().__init__(tx.connection, **options)
        self._tx = tx
        self._written_before: int | None = None
        """How much the Tx had written as the savepoint was set; None while there is none."""
        event.listen(self, "after_begin", self._note_savepoint)
        event.listen(self, "after_commit", self._note_release)

    def rollback(self) -> None:
        """Undo what went through it; TransactionError if that undid what the Tx has written as well."""
        before, self._written_before = self._written_before, None
        super().rollback()
        self._require_nothing_lost(before)

    def close(self) -> None:
        """Undo what was not committed, and end; raises as ``rollback`` does."""
        before, self._written_before = self._written_before, None
        super().close()
        self._require_nothing_lost(before)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is not None:  # which says itself that what the block did is undone
            self._written_before = None
        super().__exit__(exc_type, exc, traceback)

    def _require_nothing_lost(self, before: int | None) -> None:
        if before is not None and self._written() != before:
            raise TransactionError(
                "the ORM Session was not committed, and what the Tx has written since the Session's first "
                "statement was undone with it: call orm.commit() in time, or use the Tx outside of its block"
            )

    def _note_savepoint(self, *_: object) -> None:
        if self._written_before is None:
            self._written_before = self._written()

    def _note_release(self, _: Session) -> None:
        if not self.in_nested_transaction():
            self._written_before = None

    def _written(self) -> int:
        """Return how many operations that write were called on the Tx."""
        return getattr(
            self._tx, "_written", 0
        )  # not set where nobody has to know, by one-call operations
