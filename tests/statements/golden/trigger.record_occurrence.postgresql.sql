INSERT INTO trigger_occurrences (occurrence_id, idempotency_key, request_hash, source_type, source_key, occurred_at_ms, record_json)
VALUES (%(p_occurrence_id)s::VARCHAR, %(p_idempotency_key)s::VARCHAR, %(p_request_hash)s::VARCHAR, %(p_source_type)s::VARCHAR, %(p_source_key)s::VARCHAR, %(p_now_ms)s::BIGINT, %(p_record_json)s::VARCHAR)
ON CONFLICT (idempotency_key) DO NOTHING
