UPDATE process_leases SET lease_expires_at_ms=CASE WHEN (process_leases.lease_claimed_at_ms > %(p_now_ms)s::BIGINT) THEN CASE WHEN (process_leases.lease_claimed_at_ms > %(param_1)s::BIGINT - %(p_ttl_ms)s::BIGINT) THEN %(param_2)s::BIGINT ELSE process_leases.lease_claimed_at_ms + %(p_ttl_ms)s::BIGINT END ELSE %(p_expires_at_ms)s::BIGINT END
WHERE process_leases.process_id = %(p_key)s::VARCHAR AND process_leases.lease_owner_id = %(p_owner_id)s::VARCHAR AND process_leases.lease_token = %(p_token)s::VARCHAR AND process_leases.lease_fencing_token = %(p_fencing_token)s::BIGINT AND process_leases.lease_expires_at_ms > %(p_now_ms)s::BIGINT
RETURNING process_leases.process_id, process_leases.lease_owner_id, process_leases.lease_token, process_leases.lease_fencing_token, process_leases.lease_claimed_at_ms, process_leases.lease_expires_at_ms
-- param_1 = 9223372036854775807
-- param_2 = 9223372036854775807
