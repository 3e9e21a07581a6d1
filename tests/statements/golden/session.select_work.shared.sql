SELECT queued_work_batches.enqueue_seq, queued_work_batches.batch_id, queued_work_batches.session_id, queued_work_batches.source_key, queued_work_batches.delivery_policy, queued_work_batches.slot_policy, queued_work_batches.merge_key_json, queued_work_batches.available_at_ms, queued_work_batches.enqueued_at_ms
FROM (SELECT *
FROM lash_queued_work_batches
WHERE store = :lash_store_scope) AS queued_work_batches
WHERE queued_work_batches.session_id = :p_session_id
