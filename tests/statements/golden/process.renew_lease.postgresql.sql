UPDATE process_leases SET lease_expires_at_ms=%(p_expires_at_ms)s::BIGINT
WHERE process_leases.process_id = %(p_key)s::VARCHAR AND process_leases.lease_owner_id = %(p_owner_id)s::VARCHAR AND process_leases.lease_token = %(p_token)s::VARCHAR AND process_leases.lease_fencing_token = %(p_fencing_token)s::BIGINT AND process_leases.lease_expires_at_ms > %(p_now_ms)s::BIGINT
RETURNING process_leases.process_id, process_leases.lease_owner_id, process_leases.lease_token, process_leases.lease_fencing_token, process_leases.lease_claimed_at_ms, process_leases.lease_expires_at_ms
