UPDATE queued_work_batches SET claim_expires_at_ms=%(p_expires_at_ms)s::BIGINT
WHERE queued_work_batches.session_id = %(p_session_id)s::VARCHAR AND queued_work_batches.claim_id = %(p_claim_id)s::VARCHAR AND queued_work_batches.claim_token = %(p_token)s::VARCHAR
