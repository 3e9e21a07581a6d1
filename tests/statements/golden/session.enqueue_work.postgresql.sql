INSERT INTO queued_work_batches (batch_id, session_id, source_key, delivery_policy, slot_policy, merge_key_json, available_at_ms, enqueued_at_ms)
VALUES (%(p_batch_id)s::VARCHAR, %(p_session_id)s::VARCHAR, %(p_source_key)s::VARCHAR, %(p_delivery_policy)s::VARCHAR, %(p_slot_policy)s::VARCHAR, %(p_merge_key_json)s::VARCHAR, %(p_available_at_ms)s::BIGINT, %(p_enqueued_at_ms)s::BIGINT)
ON CONFLICT (session_id, source_key) DO NOTHING
RETURNING queued_work_batches.enqueue_seq
