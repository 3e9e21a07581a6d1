"""What a wait for a process looks for, in one snapshot after another."""

from lash_store._kernel.checks import bound, check_name
from lash_store._kernel.codecs import read_as
from lash_store.errors import CorruptRecordError, NotFoundError
from lash_store.process import statements
from lash_store.process.records.events import ProcessEvent
from lash_store.process.records.processes import RUNNING, ProcessStatus
from lash_store.process.tables import process_events, processes
from lash_store.process.tx import ProcessTx


class EventSearch:
    """Looks for the first event of one type behind a sequence, and at no event twice.

    Where a process was removed and registered anew meanwhile, all of its new log is new (P-RET-1).
    """

    def __init__(self, process_id: str, event_type: str, after_sequence: int) -> None:
        self.process_id = check_name("process_id", process_id)
        self.event_type = check_name("event_type", event_type)
        self.after_sequence = bound("after_sequence", after_sequence)
        self._log: object = None
        self._seen = self.after_sequence

    @property
    def key(self) -> str:
        """The process."""
        return self.process_id

    def may_have(self, tx: ProcessTx) -> bool:
        """Whether there are new events, of any type."""
        log, highest = self._standing(tx)
        return log != self._log or highest > self._seen

    def __call__(self, tx: ProcessTx) -> ProcessEvent | None:
        """Return the event if it has come; NotFoundError for an unknown process."""
        # The newest sequence first: most commits are about other processes.
        log, highest = self._standing(tx)
        if log != self._log:
            self._seen = self.after_sequence if self._log is None else 0
            self._log = log
        if highest <= self._seen:
            return None
        event = tx.first_event_after(self.process_id, self.event_type, self._seen)
        self._seen = highest
        return event

    def _standing(self, tx: ProcessTx) -> tuple[object, int]:
        """Return which log the process has, equal as long as it has that one, and how far it goes."""
        row = statements.log_standing.one(tx.own_cursor, process_id=self.process_id)
        if row is None:
            raise NotFoundError("process", self.process_id)
        *log, newest = row
        if newest is None:
            return log, 0
        return log, read_as(int, process_events.name, self.process_id, newest)


class EndSearch:
    """Looks whether a process has ended, and what that gave."""

    def __init__(self, process_id: str) -> None:
        self.process_id = check_name("process_id", process_id)

    @property
    def key(self) -> str:
        """The process."""
        return self.process_id

    def may_have(self, tx: ProcessTx) -> bool:
        """Whether it has ended."""
        return tx.require_process(self.process_id) != RUNNING

    def __call__(self, tx: ProcessTx) -> ProcessStatus | None:
        """Return how it ended and what that gave; NotFoundError for an unknown process."""
        if tx.require_process(self.process_id) == RUNNING:
            return None  # and its record is not decoded
        record = tx.load_process(self.process_id)
        if record is None:
            raise NotFoundError("process", self.process_id)
        if record.await_output is None:
            cause = "its status column says that it has ended, its record that it runs"
            raise CorruptRecordError(processes.name, self.process_id, cause)
        return record.status
