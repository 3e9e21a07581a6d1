DELETE
FROM lash_queued_work_batches AS queued_work_batches
WHERE queued_work_batches.session_id = :p_session_id AND queued_work_batches.claim_id = :p_claim_id AND queued_work_batches.claim_token = :p_token AND queued_work_batches.store = :lash_store_scope
