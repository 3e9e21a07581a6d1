DELETE
FROM lash_queued_work_batches AS queued_work_batches
WHERE queued_work_batches.batch_id = :p_batch_id AND NOT (queued_work_batches.claim_token IS NOT NULL AND queued_work_batches.claim_expires_at_ms > :p_now_ms) AND queued_work_batches.store = :lash_store_scope
