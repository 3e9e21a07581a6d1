SELECT queued_work_batches.enqueue_seq, queued_work_batches.batch_id, queued_work_batches.session_id, queued_work_batches.source_key, queued_work_batches.delivery_policy, queued_work_batches.slot_policy, queued_work_batches.merge_key_json, queued_work_batches.available_at_ms, queued_work_batches.enqueued_at_ms, queued_work_batches.claim_fencing_token
FROM queued_work_batches LEFT OUTER JOIN queued_work_items ON queued_work_items.batch_id = queued_work_batches.batch_id AND queued_work_items.item_index = :item_index_1
WHERE queued_work_batches.session_id = :p_session_id AND (queued_work_batches.claim_token IS NULL OR queued_work_batches.claim_expires_at_ms <= :p_now_ms) AND queued_work_batches.available_at_ms <= :p_now_ms ORDER BY queued_work_batches.enqueue_seq
LIMIT :p_max_batches OFFSET :param_1
-- item_index_1 = 0
-- param_1 = 0
