UPDATE process_leases SET lease_owner_id=%(lease_owner_id)s::VARCHAR, lease_token=%(lease_token)s::VARCHAR, lease_claimed_at_ms=%(lease_claimed_at_ms)s::BIGINT, lease_expires_at_ms=%(lease_expires_at_ms)s::BIGINT
WHERE process_leases.process_id = %(p_key)s::VARCHAR AND process_leases.lease_owner_id = %(p_owner_id)s::VARCHAR AND process_leases.lease_token = %(p_token)s::VARCHAR AND process_leases.lease_fencing_token = %(p_fencing_token)s::BIGINT AND process_leases.lease_expires_at_ms > %(p_now_ms)s::BIGINT
-- lease_claimed_at_ms = 0
-- lease_expires_at_ms = 0
