INSERT INTO process_leases (process_id, lease_owner_id, lease_token, lease_fencing_token, lease_claimed_at_ms, lease_expires_at_ms)
VALUES (%(p_key)s::VARCHAR, %(p_owner_id)s::VARCHAR, %(p_token)s::VARCHAR, %(lease_fencing_token)s::BIGINT, %(p_now_ms)s::BIGINT, %(p_expires_at_ms)s::BIGINT)
ON CONFLICT (process_id)
DO UPDATE SET lease_owner_id = excluded.lease_owner_id, lease_token = excluded.lease_token, lease_fencing_token = (process_leases.lease_fencing_token + %(lease_fencing_token_1)s::BIGINT), lease_claimed_at_ms = excluded.lease_claimed_at_ms, lease_expires_at_ms = excluded.lease_expires_at_ms
WHERE process_leases.lease_token IS NULL OR process_leases.lease_expires_at_ms <= %(p_now_ms)s::BIGINT OR process_leases.lease_owner_id = %(p_owner_id)s::VARCHAR
RETURNING process_leases.process_id, process_leases.lease_owner_id, process_leases.lease_token, process_leases.lease_fencing_token, process_leases.lease_claimed_at_ms, process_leases.lease_expires_at_ms
-- lease_fencing_token = 1
-- lease_fencing_token_1 = 1
