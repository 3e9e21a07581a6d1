INSERT INTO lash_process_events AS process_events (process_id, sequence, event_type, payload_hash, idempotency_key, occurred_at_ms, event_json)
VALUES (:p_process_id, :p_sequence, :p_event_type, :p_payload_hash, :p_replay_key, :p_occurred_at_ms, :p_event_json)
