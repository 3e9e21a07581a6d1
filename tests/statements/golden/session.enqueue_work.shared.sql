INSERT INTO lash_queued_work_batches AS queued_work_batches (store, enqueue_seq, batch_id, session_id, source_key, delivery_policy, slot_policy, merge_key_json, available_at_ms, enqueued_at_ms)
VALUES (:lash_store_scope, (SELECT coalesce(max(enqueue_seq), 0) + 1
FROM lash_queued_work_batches
WHERE store = :lash_store_scope), :p_batch_id, :p_session_id, :p_source_key, :p_delivery_policy, :p_slot_policy, :p_merge_key_json, :p_available_at_ms, :p_enqueued_at_ms)
ON CONFLICT (store, session_id, source_key) DO NOTHING
RETURNING enqueue_seq
