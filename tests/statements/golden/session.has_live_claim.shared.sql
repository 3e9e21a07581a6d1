queued_work_batches.claim_token IS NOT NULL AND queued_work_batches.claim_expires_at_ms > :p_now_ms
