"""Statements on the session execution lease; each row's `key` is a session id."""

from lash_store.session.tables import EXECUTION_LEASES

select_leases = EXECUTION_LEASES.select_leases
is_live = EXECUTION_LEASES.is_live
current_lease = EXECUTION_LEASES.current_lease
claim_lease = EXECUTION_LEASES.claim_lease
renew_lease = EXECUTION_LEASES.renew_lease
release_lease = EXECUTION_LEASES.release_lease
