"""The process registry's facades: sync and asyncio, one line for each operation."""

from __future__ import annotations

from lash_store._kernel.deployment import AsyncDeploymentStore, DeploymentStore
from lash_store._kernel.store import (
    in_async_snapshot,
    in_async_transaction,
    in_snapshot,
    in_transaction,
)
from lash_store.process.records import AwaitOutput, ProcessEvent
from lash_store.process.tx import ProcessTx
from lash_store.process.waiting import EndSearch, EventSearch


class ProcessRegistry(DeploymentStore[ProcessTx]):
    """The background processes of a deployment, in one database file.

    Every operation is one transaction; several go together in ``begin()``. The arguments,
    results and errors of each are documented on :class:`ProcessTx`.
    """

    operations = ProcessTx

    def wait_event_after(
        self,
        process_id: str,
        event_type: str,
        after_sequence: int = 0,
        *,
        timeout_ms: int | None = None,
    ) -> ProcessEvent | None:
        """Wait for the first event of one type behind a sequence; None after `timeout_ms` (P-EVENT-9).

        Raises NotFoundError for an unknown process; see ``wait_until`` for how it waits.
        """
        search = EventSearch(process_id, event_type, after_sequence)
        return self.wait_until(search, timeout_ms=timeout_ms)

    def await_process(
        self, process_id: str, *, timeout_ms: int | None = None
    ) -> AwaitOutput | None:
        """Wait for a process to end and return what that gave; None after `timeout_ms` (P-EVENT-9).

        Raises NotFoundError for an unknown process; see ``wait_until`` for how it waits.
        """
        ended = self.wait_until(EndSearch(process_id), timeout_ms=timeout_ms)
        return None if ended is None else ended.await_output

    register_process = in_transaction(ProcessTx.register_process)
    load_process = in_snapshot(ProcessTx.load_process)
    list_processes = in_snapshot(ProcessTx.list_processes)
    known_processes = in_snapshot(ProcessTx.known_processes)
    set_external_ref = in_transaction(ProcessTx.set_external_ref)
    set_wait = in_transaction(ProcessTx.set_wait)
    clear_wait = in_transaction(ProcessTx.clear_wait)

    append_event = in_transaction(ProcessTx.append_event)
    complete_process = in_transaction(ProcessTx.complete_process)
    request_cancel = in_transaction(ProcessTx.request_cancel)
    events_after = in_snapshot(ProcessTx.events_after)
    recent_events = in_snapshot(ProcessTx.recent_events)
    count_through = in_snapshot(ProcessTx.count_through)
    first_event_after = in_snapshot(ProcessTx.first_event_after)
    wake_events_after = in_snapshot(ProcessTx.wake_events_after)
    ack_wake = in_transaction(ProcessTx.ack_wake)
    pending_wakes = in_snapshot(ProcessTx.pending_wakes)

    grant_handle = in_transaction(ProcessTx.grant_handle)
    revoke_handle = in_transaction(ProcessTx.revoke_handle)
    transfer_handles = in_transaction(ProcessTx.transfer_handles)
    has_handle = in_snapshot(ProcessTx.has_handle)
    list_handles = in_snapshot(ProcessTx.list_handles)
    list_live_handles = in_snapshot(ProcessTx.list_live_handles)
    list_handles_on = in_snapshot(ProcessTx.list_handles_on)
    delete_session = in_transaction(ProcessTx.delete_session)

    claim_lease = in_transaction(ProcessTx.claim_lease)
    claim_next = in_transaction(ProcessTx.claim_next)
    renew_lease = in_transaction(ProcessTx.renew_lease)
    release_lease = in_transaction(ProcessTx.release_lease)
    current_lease = in_snapshot(ProcessTx.current_lease)


class AsyncProcessRegistry(AsyncDeploymentStore[ProcessTx]):
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

        Raises NotFoundError for an unknown process. Cancelling it ends the wait.
        """
        search = EventSearch(process_id, event_type, after_sequence)
        return await self.wait_until(search, timeout_ms=timeout_ms)

    async def await_process(
        self, process_id: str, *, timeout_ms: int | None = None
    ) -> AwaitOutput | None:
        """Wait for a process to end and return what that gave; None after `timeout_ms` (P-EVENT-9).

        Raises NotFoundError for an unknown process. Cancelling it ends the wait.
        """
        ended = await self.wait_until(EndSearch(process_id), timeout_ms=timeout_ms)
        return None if ended is None else ended.await_output

    register_process = in_async_transaction(ProcessTx.register_process)
    load_process = in_async_snapshot(ProcessTx.load_process)
    list_processes = in_async_snapshot(ProcessTx.list_processes)
    known_processes = in_async_snapshot(ProcessTx.known_processes)
    set_external_ref = in_async_transaction(ProcessTx.set_external_ref)
    set_wait = in_async_transaction(ProcessTx.set_wait)
    clear_wait = in_async_transaction(ProcessTx.clear_wait)

    append_event = in_async_transaction(ProcessTx.append_event)
    complete_process = in_async_transaction(ProcessTx.complete_process)
    request_cancel = in_async_transaction(ProcessTx.request_cancel)
    events_after = in_async_snapshot(ProcessTx.events_after)
    recent_events = in_async_snapshot(ProcessTx.recent_events)
    count_through = in_async_snapshot(ProcessTx.count_through)
    first_event_after = in_async_snapshot(ProcessTx.first_event_after)
    wake_events_after = in_async_snapshot(ProcessTx.wake_events_after)
    ack_wake = in_async_transaction(ProcessTx.ack_wake)
    pending_wakes = in_async_snapshot(ProcessTx.pending_wakes)

    grant_handle = in_async_transaction(ProcessTx.grant_handle)
    revoke_handle = in_async_transaction(ProcessTx.revoke_handle)
    transfer_handles = in_async_transaction(ProcessTx.transfer_handles)
    has_handle = in_async_snapshot(ProcessTx.has_handle)
    list_handles = in_async_snapshot(ProcessTx.list_handles)
    list_live_handles = in_async_snapshot(ProcessTx.list_live_handles)
    list_handles_on = in_async_snapshot(ProcessTx.list_handles_on)
    delete_session = in_async_transaction(ProcessTx.delete_session)

    claim_lease = in_async_transaction(ProcessTx.claim_lease)
    claim_next = in_async_transaction(ProcessTx.claim_next)
    renew_lease = in_async_transaction(ProcessTx.renew_lease)
    release_lease = in_async_transaction(ProcessTx.release_lease)
    current_lease = in_async_snapshot(ProcessTx.current_lease)
