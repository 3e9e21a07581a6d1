UPDATE queued_work_batches SET claim_id=:p_claim_id, claim_owner_id=:p_owner_id, claim_token=:p_token, claim_fencing_token=(queued_work_batches.claim_fencing_token + :claim_fencing_token_1), claim_claimed_at_ms=:p_now_ms, claim_expires_at_ms=:p_expires_at_ms
WHERE queued_work_batches.enqueue_seq = :p_enqueue_seq AND NOT (queued_work_batches.claim_token IS NOT NULL AND queued_work_batches.claim_expires_at_ms > :p_now_ms) AND (EXISTS (SELECT *
FROM session_execution_leases
WHERE session_execution_leases.session_id = :p_session_id AND session_execution_leases.lease_owner_id = :p_lease_owner_id AND session_execution_leases.lease_token = :p_lease_token AND session_execution_leases.lease_fencing_token = :p_lease_fencing_token AND session_execution_leases.lease_expires_at_ms > :p_now_ms))
-- claim_fencing_token_1 = 1
