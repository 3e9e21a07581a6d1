"""The process registry's facades: sync and asyncio, and waiting."""

from lash_store._stores.deployment import AsyncDeploymentStore, DeploymentStore
from lash_store.process.holding import ProcessHolding
from lash_store.process.operations import ProcessOperations
from lash_store.process.records import AwaitOutput, ProcessEvent
from lash_store.process.tx import ProcessTx
from lash_store.process.waiting import EndSearch, EventSearch


class ProcessRegistry(ProcessHolding, ProcessOperations, DeploymentStore[ProcessTx]):
    """The background processes of a deployment, in one database file.

    Every operation is one transaction; several go together in ``begin()``. The arguments,
    results and errors of each are documented on :class:`ProcessTx`.
    """

    kind = ProcessTx

    def wait_event_after(
        self,
        process_id: str,
        event_type: str,
        after_sequence: int = 0,
        *,
        timeout_ms: int | None = None,
    ) -> ProcessEvent | None:
        """Wait for the first event of one type behind a sequence; None after `timeout_ms` (P-EVENT-9).

        Raises NotFoundError for an unknown process; see ``wait_until`` for how it waits. The end of the process
        does not end the wait: events may follow it. Who follows a log waits for its end beside that.
        """
        search = EventSearch(process_id, event_type, after_sequence)
        return self._wait_for(search, timeout_ms)

    def await_process(
        self, process_id: str, *, timeout_ms: int | None = None
    ) -> AwaitOutput | None:
        """Wait for a process to end and return what that gave; None after `timeout_ms` (P-EVENT-9).

        Raises NotFoundError for an unknown process; see ``wait_until`` for how it waits.
        """
        ended = self._wait_for(EndSearch(process_id), timeout_ms)
        return None if ended is None else ended.await_output


class AsyncProcessRegistry(ProcessHolding, ProcessOperations, AsyncDeploymentStore[ProcessTx]):
    """:class:`ProcessRegistry` for asyncio: the same operations, as coroutines."""

    sync = ProcessRegistry

    async def wait_event_after(
        self,
        process_id: str,
        event_type: str,
        after_sequence: int = 0,
        *,
        timeout_ms: int | None = None,
    ) -> ProcessEvent | None:
        """Wait for the first event of one type behind a sequence; None after `timeout_ms` (P-EVENT-9).

        Raises NotFoundError for an unknown process. Cancelling it ends the wait. The end of the process
        does not: events may follow it. Who follows a log waits for its end beside that.
        """
        search = EventSearch(process_id, event_type, after_sequence)
        return await self._wait_for("first_event_after", search, timeout_ms)

    async def await_process(
        self, process_id: str, *, timeout_ms: int | None = None
    ) -> AwaitOutput | None:
        """Wait for a process to end and return what that gave; None after `timeout_ms` (P-EVENT-9).

        Raises NotFoundError for an unknown process. Cancelling it ends the wait.
        """
        ended = await self._wait_for("load_process", EndSearch(process_id), timeout_ms)
        return None if ended is None else ended.await_output
