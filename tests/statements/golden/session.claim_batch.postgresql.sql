UPDATE queued_work_batches SET claim_id=%(p_claim_id)s::VARCHAR, claim_owner_id=%(p_owner_id)s::VARCHAR, claim_token=%(p_token)s::VARCHAR, claim_fencing_token=(queued_work_batches.claim_fencing_token + %(claim_fencing_token_1)s::BIGINT), claim_claimed_at_ms=%(p_now_ms)s::BIGINT, claim_expires_at_ms=%(p_expires_at_ms)s::BIGINT
WHERE queued_work_batches.enqueue_seq = %(p_enqueue_seq)s::BIGINT AND NOT (queued_work_batches.claim_token IS NOT NULL AND queued_work_batches.claim_expires_at_ms > %(p_now_ms)s::BIGINT)
-- claim_fencing_token_1 = 1
