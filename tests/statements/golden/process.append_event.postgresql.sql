INSERT INTO process_events (process_id, sequence, event_type, payload_hash, idempotency_key, occurred_at_ms, event_json)
VALUES (%(p_process_id)s::VARCHAR, %(p_sequence)s::BIGINT, %(p_event_type)s::VARCHAR, %(p_payload_hash)s::VARCHAR, %(p_replay_key)s::VARCHAR, %(p_occurred_at_ms)s::BIGINT, %(p_event_json)s::VARCHAR)
