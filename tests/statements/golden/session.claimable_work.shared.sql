SELECT anon_1.enqueue_seq, anon_1.batch_id, anon_1.session_id, anon_1.source_key, anon_1.delivery_policy, anon_1.slot_policy, anon_1.merge_key_json, anon_1.available_at_ms, anon_1.enqueued_at_ms, anon_1.claim_fencing_token
FROM (SELECT anon_2.enqueue_seq AS enqueue_seq, anon_2.batch_id AS batch_id, anon_2.session_id AS session_id, anon_2.source_key AS source_key, anon_2.delivery_policy AS delivery_policy, anon_2.slot_policy AS slot_policy, anon_2.merge_key_json AS merge_key_json, anon_2.available_at_ms AS available_at_ms, anon_2.enqueued_at_ms AS enqueued_at_ms, anon_2.claim_fencing_token AS claim_fencing_token
FROM (SELECT queued_work_batches.enqueue_seq AS enqueue_seq, queued_work_batches.batch_id AS batch_id, queued_work_batches.session_id AS session_id, queued_work_batches.source_key AS source_key, queued_work_batches.delivery_policy AS delivery_policy, queued_work_batches.slot_policy AS slot_policy, queued_work_batches.merge_key_json AS merge_key_json, queued_work_batches.available_at_ms AS available_at_ms, queued_work_batches.enqueued_at_ms AS enqueued_at_ms, queued_work_batches.claim_fencing_token AS claim_fencing_token
FROM (SELECT *
FROM lash_queued_work_batches INDEXED BY lash_idx_queued_work_claim
WHERE store = :lash_store_scope) AS queued_work_batches
WHERE queued_work_batches.session_id = :p_session_id AND queued_work_batches.claim_id IS NULL AND queued_work_batches.claim_token IS NULL AND queued_work_batches.available_at_ms <= :p_now_ms ORDER BY queued_work_batches.enqueue_seq
LIMIT :p_max_batches OFFSET :param_1) AS anon_2 UNION ALL SELECT anon_3.enqueue_seq AS enqueue_seq, anon_3.batch_id AS batch_id, anon_3.session_id AS session_id, anon_3.source_key AS source_key, anon_3.delivery_policy AS delivery_policy, anon_3.slot_policy AS slot_policy, anon_3.merge_key_json AS merge_key_json, anon_3.available_at_ms AS available_at_ms, anon_3.enqueued_at_ms AS enqueued_at_ms, anon_3.claim_fencing_token AS claim_fencing_token
FROM (SELECT queued_work_batches.enqueue_seq AS enqueue_seq, queued_work_batches.batch_id AS batch_id, queued_work_batches.session_id AS session_id, queued_work_batches.source_key AS source_key, queued_work_batches.delivery_policy AS delivery_policy, queued_work_batches.slot_policy AS slot_policy, queued_work_batches.merge_key_json AS merge_key_json, queued_work_batches.available_at_ms AS available_at_ms, queued_work_batches.enqueued_at_ms AS enqueued_at_ms, queued_work_batches.claim_fencing_token AS claim_fencing_token
FROM (SELECT *
FROM lash_queued_work_batches INDEXED BY lash_idx_queued_work_claim
WHERE store = :lash_store_scope) AS queued_work_batches
WHERE queued_work_batches.session_id = :p_session_id AND queued_work_batches.claim_id IS NOT NULL AND (queued_work_batches.claim_token IS NULL OR queued_work_batches.claim_expires_at_ms <= :p_now_ms) AND queued_work_batches.available_at_ms <= :p_now_ms ORDER BY queued_work_batches.enqueue_seq
LIMIT :p_max_batches OFFSET :param_2) AS anon_3 UNION ALL SELECT anon_4.enqueue_seq AS enqueue_seq, anon_4.batch_id AS batch_id, anon_4.session_id AS session_id, anon_4.source_key AS source_key, anon_4.delivery_policy AS delivery_policy, anon_4.slot_policy AS slot_policy, anon_4.merge_key_json AS merge_key_json, anon_4.available_at_ms AS available_at_ms, anon_4.enqueued_at_ms AS enqueued_at_ms, anon_4.claim_fencing_token AS claim_fencing_token
FROM (SELECT queued_work_batches.enqueue_seq AS enqueue_seq, queued_work_batches.batch_id AS batch_id, queued_work_batches.session_id AS session_id, queued_work_batches.source_key AS source_key, queued_work_batches.delivery_policy AS delivery_policy, queued_work_batches.slot_policy AS slot_policy, queued_work_batches.merge_key_json AS merge_key_json, queued_work_batches.available_at_ms AS available_at_ms, queued_work_batches.enqueued_at_ms AS enqueued_at_ms, queued_work_batches.claim_fencing_token AS claim_fencing_token
FROM (SELECT *
FROM lash_queued_work_batches INDEXED BY lash_idx_queued_work_claim
WHERE store = :lash_store_scope) AS queued_work_batches
WHERE queued_work_batches.session_id = :p_session_id AND queued_work_batches.claim_id IS NULL AND queued_work_batches.claim_token IS NOT NULL AND queued_work_batches.claim_expires_at_ms <= :p_now_ms AND queued_work_batches.available_at_ms <= :p_now_ms ORDER BY queued_work_batches.enqueue_seq
LIMIT :p_max_batches OFFSET :param_3) AS anon_4) AS anon_1 ORDER BY anon_1.enqueue_seq
LIMIT :p_max_batches OFFSET :param_4
-- param_1 = 0
-- param_2 = 0
-- param_3 = 0
-- param_4 = 0
