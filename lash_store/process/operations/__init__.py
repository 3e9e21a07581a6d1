"""The operations of a process registry: functions of an open transaction, by aggregate, and their list."""

from lash_store._stores.operations import Operations, legacy_reads, legacy_writes, reads, writes
from lash_store.process.operations import events, handles, leases, processes


class ProcessOperations(Operations):
    """What a process registry does, on a transaction or by a call of its own."""

    __slots__ = ()

    register_process = legacy_writes(processes.register_process)
    load_process = legacy_reads(processes.load_process)
    list_processes = legacy_reads(processes.list_processes)
    known_processes = legacy_reads(processes.known_processes)
    set_external_ref = legacy_writes(processes.set_external_ref)
    set_wait = legacy_writes(processes.set_wait)
    clear_wait = legacy_writes(processes.clear_wait)

    append_event = legacy_writes(events.append_event)
    complete_process = legacy_writes(events.complete_process)
    request_cancel = legacy_writes(events.request_cancel)
    events_after = legacy_reads(events.events_after)
    recent_events = legacy_reads(events.recent_events)
    count_through = legacy_reads(events.count_through)
    first_event_after = legacy_reads(events.first_event_after)
    wake_events_after = legacy_reads(events.wake_events_after)
    ack_wake = legacy_writes(events.ack_wake)
    pending_wakes = legacy_reads(events.pending_wakes)

    grant_handle = legacy_writes(handles.grant_handle)
    revoke_handle = legacy_writes(handles.revoke_handle)
    transfer_handles = legacy_writes(handles.transfer_handles)
    has_handle = legacy_reads(handles.has_handle)
    list_handles = legacy_reads(handles.list_handles)
    list_live_handles = legacy_reads(handles.list_live_handles)
    list_handles_on = legacy_reads(handles.list_handles_on)
    delete_session = legacy_writes(handles.delete_session)

    claim_lease = legacy_writes(leases.claim_lease)
    claim_next = legacy_writes(leases.claim_next)
    renew_lease = writes(leases.LEASES.renewing)
    release_lease = writes(leases.LEASES.releasing)
    current_lease = legacy_reads(leases.current_lease)
