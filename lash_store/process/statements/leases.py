"""Statements on the process lease; each row's `key` is a process id."""

from lash_store.process.tables import PROCESS_LEASES

select_leases = PROCESS_LEASES.select_leases
is_live = PROCESS_LEASES.is_live
current_lease = PROCESS_LEASES.current_lease
claim_lease = PROCESS_LEASES.claim_lease
renew_lease = PROCESS_LEASES.renew_lease
release_lease = PROCESS_LEASES.release_lease
release_live_lease = PROCESS_LEASES.release_live_lease
