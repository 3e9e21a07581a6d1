SELECT queued_work_batches.enqueue_seq, queued_work_batches.batch_id, queued_work_batches.session_id, queued_work_batches.source_key, queued_work_batches.delivery_policy, queued_work_batches.slot_policy, queued_work_batches.merge_key_json, queued_work_batches.available_at_ms, queued_work_batches.enqueued_at_ms, queued_work_batches.claim_fencing_token
FROM (SELECT anon_2.enqueue_seq AS enqueue_seq
FROM (SELECT queued_work_batches.enqueue_seq AS enqueue_seq
FROM (SELECT *
FROM lash_queued_work_batches INDEXED BY lash_idx_queued_work_claim
WHERE store = :lash_store_scope) AS queued_work_batches
WHERE queued_work_batches.session_id = :p_session_id AND queued_work_batches.claim_id IS NULL AND queued_work_batches.claim_token IS NULL AND queued_work_batches.available_at_ms <= :p_now_ms ORDER BY queued_work_batches.enqueue_seq
LIMIT :p_max_batches OFFSET :param_1) AS anon_2 UNION ALL SELECT queued_work_batches.enqueue_seq AS enqueue_seq
FROM (SELECT *
FROM lash_queued_work_batches INDEXED BY lash_idx_queued_work_claim
WHERE store = :lash_store_scope) AS queued_work_batches
WHERE queued_work_batches.session_id = :p_session_id AND queued_work_batches.claim_id IS NOT NULL AND (queued_work_batches.claim_token IS NULL OR queued_work_batches.claim_expires_at_ms <= :p_now_ms) AND queued_work_batches.available_at_ms <= :p_now_ms UNION ALL SELECT queued_work_batches.enqueue_seq AS enqueue_seq
FROM (SELECT *
FROM lash_queued_work_batches INDEXED BY lash_idx_queued_work_claim
WHERE store = :lash_store_scope) AS queued_work_batches
WHERE queued_work_batches.session_id = :p_session_id AND queued_work_batches.claim_id IS NULL AND queued_work_batches.claim_token IS NOT NULL AND queued_work_batches.claim_expires_at_ms <= :p_now_ms AND queued_work_batches.available_at_ms <= :p_now_ms) AS anon_1 LEFT OUTER JOIN (SELECT *
FROM lash_queued_work_batches INDEXED BY sqlite_autoindex_lash_queued_work_batches_1
WHERE store = :lash_store_scope) AS queued_work_batches ON queued_work_batches.enqueue_seq = anon_1.enqueue_seq ORDER BY anon_1.enqueue_seq
LIMIT :p_max_batches OFFSET :param_2
-- param_1 = 0
-- param_2 = 0
