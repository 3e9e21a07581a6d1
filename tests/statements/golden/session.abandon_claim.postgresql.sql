UPDATE queued_work_batches SET claim_id=%(claim_id)s::VARCHAR, claim_owner_id=%(claim_owner_id)s::VARCHAR, claim_token=%(claim_token)s::VARCHAR, claim_claimed_at_ms=%(claim_claimed_at_ms)s::BIGINT, claim_expires_at_ms=%(claim_expires_at_ms)s::BIGINT
WHERE queued_work_batches.session_id = %(p_session_id)s::VARCHAR AND queued_work_batches.claim_id = %(p_claim_id)s::VARCHAR AND queued_work_batches.claim_token = %(p_token)s::VARCHAR
-- claim_claimed_at_ms = 0
-- claim_expires_at_ms = 0
