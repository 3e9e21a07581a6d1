SELECT queued_work_batches.claim_owner_id
FROM queued_work_batches
WHERE queued_work_batches.enqueue_seq = :p_enqueue_seq AND queued_work_batches.claim_token IS NOT NULL
