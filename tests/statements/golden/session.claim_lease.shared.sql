INSERT INTO lash_session_execution_leases AS session_execution_leases (store, session_id, lease_owner_id, lease_token, lease_fencing_token, lease_claimed_at_ms, lease_expires_at_ms)
VALUES (:lash_store_scope, :p_key, :p_owner_id, :p_token, :lease_fencing_token, :p_now_ms, :p_expires_at_ms)
ON CONFLICT (store, session_id)
DO UPDATE SET lease_owner_id = excluded.lease_owner_id, lease_token = CASE WHEN (session_execution_leases.lease_token IS NULL OR session_execution_leases.lease_expires_at_ms <= :p_now_ms) THEN excluded.lease_token ELSE session_execution_leases.lease_token END, lease_fencing_token = CASE WHEN (session_execution_leases.lease_token IS NULL OR session_execution_leases.lease_expires_at_ms <= :p_now_ms) THEN session_execution_leases.lease_fencing_token + :lease_fencing_token_1 ELSE session_execution_leases.lease_fencing_token END, lease_claimed_at_ms = CASE WHEN (session_execution_leases.lease_token IS NULL OR session_execution_leases.lease_expires_at_ms <= :p_now_ms) THEN excluded.lease_claimed_at_ms ELSE session_execution_leases.lease_claimed_at_ms END, lease_expires_at_ms = excluded.lease_expires_at_ms
WHERE session_execution_leases.lease_token IS NULL OR session_execution_leases.lease_expires_at_ms <= :p_now_ms OR session_execution_leases.lease_owner_id = :p_owner_id
RETURNING session_id, lease_owner_id, lease_token, lease_fencing_token, lease_claimed_at_ms, lease_expires_at_ms
-- lease_fencing_token = 1
-- lease_fencing_token_1 = 1
