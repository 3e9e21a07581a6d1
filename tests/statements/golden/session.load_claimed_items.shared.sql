SELECT queued_work_batches.batch_id, queued_work_items.item_id, queued_work_items.payload_json
FROM (SELECT *
FROM lash_queued_work_batches INDEXED BY lash_idx_queued_work_claim
WHERE store = :lash_store_scope) AS queued_work_batches LEFT OUTER JOIN (SELECT *
FROM lash_queued_work_items
WHERE store = :lash_store_scope) AS queued_work_items ON queued_work_items.batch_id = queued_work_batches.batch_id
WHERE queued_work_batches.session_id = :p_session_id AND queued_work_batches.claim_id = :p_claim_id AND queued_work_batches.claim_token = :p_token ORDER BY queued_work_batches.enqueue_seq, queued_work_items.item_index
