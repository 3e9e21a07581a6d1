UPDATE session_execution_leases SET lease_expires_at_ms=CASE WHEN (session_execution_leases.lease_claimed_at_ms > :p_now_ms) THEN CASE WHEN (session_execution_leases.lease_claimed_at_ms > :param_1 - :p_ttl_ms) THEN :param_2 ELSE session_execution_leases.lease_claimed_at_ms + :p_ttl_ms END ELSE :p_expires_at_ms END
WHERE session_execution_leases.session_id = :p_key AND session_execution_leases.lease_owner_id = :p_owner_id AND session_execution_leases.lease_token = :p_token AND session_execution_leases.lease_fencing_token = :p_fencing_token AND session_execution_leases.lease_expires_at_ms > :p_now_ms
RETURNING session_id, lease_owner_id, lease_token, lease_fencing_token, lease_claimed_at_ms, lease_expires_at_ms
-- param_1 = 9223372036854775807
-- param_2 = 9223372036854775807
