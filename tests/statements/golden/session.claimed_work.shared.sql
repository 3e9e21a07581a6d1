SELECT queued_work_batches.batch_id
FROM (SELECT *
FROM lash_queued_work_batches
WHERE store = :lash_store_scope) AS queued_work_batches
WHERE queued_work_batches.session_id = :p_session_id AND queued_work_batches.claim_id = :p_claim_id AND queued_work_batches.claim_token = :p_token
