"""The operations of a process registry, by aggregate, and their list."""

from lash_store._stores.operations import Operations, reads, writes
from lash_store.process.operations import (
    claims,
    events,
    handles,
    leases,
    processes,
    retention,
    wakes,
)


class ProcessOperations(Operations):
    """What a process registry does, on a transaction or by a call of its own."""

    __slots__ = ()

    register_process = writes(processes.register_process)
    load_process = reads(processes.load_process)
    list_processes = reads(processes.list_processes)
    known_processes = reads(processes.known_processes)
    set_external_ref = writes(processes.set_external_ref)
    set_wait = writes(processes.set_wait)
    clear_wait = writes(processes.clear_wait)

    append_event = writes(events.append_event, finds=True)
    complete_process = writes(events.complete_process, finds=True)
    request_cancel = writes(events.request_cancel, finds=True)
    events_after = reads(events.events_after)
    recent_events = reads(events.recent_events)
    count_through = reads(events.count_through)
    first_event_after = reads(events.first_event_after)
    wake_events_after = reads(wakes.wake_events_after)
    ack_wake = writes(wakes.ack_wake)
    pending_wakes = reads(wakes.pending_wakes)

    grant_handle = writes(handles.grant_handle)
    revoke_handle = writes(handles.revoke_handle)
    transfer_handles = writes(handles.transfer_handles)
    has_handle = reads(handles.has_handle)
    list_handles = reads(handles.list_handles)
    list_live_handles = reads(handles.list_live_handles)
    list_handles_on = reads(handles.list_handles_on)
    delete_session = writes(handles.delete_session)

    claim_lease = writes(leases.claim_lease)
    claim_next = writes(claims.claim_next)
    complete_and_claim_next = writes(claims.complete_and_claim_next, finds=True)
    renew_lease = writes(leases.LEASES.renewing)
    release_lease = writes(leases.LEASES.releasing)
    current_lease = reads(leases.current_lease)

    list_causing_occurrences = reads(retention.list_causing_occurrences)
    prune_processes = writes(retention.prune_processes)
