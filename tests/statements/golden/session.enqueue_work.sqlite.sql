INSERT INTO queued_work_batches (batch_id, session_id, source_key, delivery_policy, slot_policy, merge_key_json, available_at_ms, enqueued_at_ms)
VALUES (:p_batch_id, :p_session_id, :p_source_key, :p_delivery_policy, :p_slot_policy, :p_merge_key_json, :p_available_at_ms, :p_enqueued_at_ms)
ON CONFLICT (session_id, source_key) DO NOTHING
RETURNING enqueue_seq
