"""The statements of a process registry: arguments in, SQLAlchemy construct out, nothing run.

A ``Select`` can be filtered, joined and paged, and a write can run in a transaction of the
consumer's own. Every time is an argument, milliseconds since the epoch.
"""

from lash_store.process.statements.events import (
    ack_wake as ack_wake,
    append_event as append_event,
    count_through as count_through,
    events_after as events_after,
    find_event as find_event,
    find_replay as find_replay,
    first_event_after as first_event_after,
    highest_sequence as highest_sequence,
    is_pending_wake as is_pending_wake,
    log_standing as log_standing,
    pending_wakes as pending_wakes,
    recent_events as recent_events,
    select_events as select_events,
    wake_events_after as wake_events_after,
)
from lash_store.process.statements.handles import (
    grant_handle as grant_handle,
    list_handles as list_handles,
    list_handles_on as list_handles_on,
    list_live_handles as list_live_handles,
    load_handle as load_handle,
    revoke_handle as revoke_handle,
    revoke_session as revoke_session,
    running_handles_of_session as running_handles_of_session,
    select_handles as select_handles,
)
from lash_store.process.statements.leases import (
    claim_lease as claim_lease,
    current_lease as current_lease,
    is_live as is_live,
    release_lease as release_lease,
    release_live_lease as release_live_lease,
    renew_lease as renew_lease,
    select_leases as select_leases,
)
from lash_store.process.statements.processes import (
    claimable_besides as claimable_besides,
    claimable_process as claimable_process,
    count_status as count_status,
    delete_process as delete_process,
    known_processes as known_processes,
    list_processes as list_processes,
    list_status as list_status,
    load_process as load_process,
    load_standing as load_standing,
    lock_claimable as lock_claimable,
    matches_filter as matches_filter,
    next_claimable as next_claimable,
    old_processes as old_processes,
    process_status as process_status,
    register_process as register_process,
    select_processes as select_processes,
    targets_session as targets_session,
    update_process as update_process,
    wake_targets as wake_targets,
)
from lash_store.process.tables import is_wake as is_wake
