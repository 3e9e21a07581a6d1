UPDATE lash_process_leases AS process_leases SET lease_owner_id=:lease_owner_id, lease_token=:lease_token, lease_claimed_at_ms=:lease_claimed_at_ms, lease_expires_at_ms=:lease_expires_at_ms
WHERE process_leases.process_id = :p_key AND process_leases.lease_owner_id = :p_owner_id AND process_leases.lease_token = :p_token AND process_leases.lease_fencing_token = :p_fencing_token AND process_leases.lease_expires_at_ms > :p_now_ms
-- lease_claimed_at_ms = 0
-- lease_expires_at_ms = 0
