UPDATE lash_session_execution_leases AS session_execution_leases SET lease_owner_id=:lease_owner_id, lease_token=:lease_token, lease_claimed_at_ms=:lease_claimed_at_ms, lease_expires_at_ms=:lease_expires_at_ms
WHERE session_execution_leases.session_id = :p_key AND session_execution_leases.lease_owner_id = :p_owner_id AND session_execution_leases.lease_token = :p_token AND session_execution_leases.lease_fencing_token = :p_fencing_token AND session_execution_leases.store = :lash_store_scope
-- lease_claimed_at_ms = 0
-- lease_expires_at_ms = 0
