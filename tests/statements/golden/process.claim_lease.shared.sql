INSERT INTO lash_process_leases AS process_leases (process_id, lease_owner_id, lease_token, lease_fencing_token, lease_claimed_at_ms, lease_expires_at_ms)
VALUES (:p_key, :p_owner_id, :p_token, :lease_fencing_token, :p_now_ms, :p_expires_at_ms)
ON CONFLICT (process_id)
DO UPDATE SET lease_owner_id = excluded.lease_owner_id, lease_token = excluded.lease_token, lease_fencing_token = (process_leases.lease_fencing_token + :lease_fencing_token_1), lease_claimed_at_ms = excluded.lease_claimed_at_ms, lease_expires_at_ms = excluded.lease_expires_at_ms
WHERE process_leases.lease_token IS NULL OR process_leases.lease_expires_at_ms <= :p_now_ms OR process_leases.lease_owner_id = :p_owner_id
RETURNING process_id, lease_owner_id, lease_token, lease_fencing_token, lease_claimed_at_ms, lease_expires_at_ms
-- lease_fencing_token = 1
-- lease_fencing_token_1 = 1
