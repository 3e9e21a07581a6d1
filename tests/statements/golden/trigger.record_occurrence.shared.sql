INSERT INTO lash_trigger_occurrences AS trigger_occurrences (occurrence_id, idempotency_key, request_hash, source_type, source_key, occurred_at_ms, record_json)
VALUES (:p_occurrence_id, :p_idempotency_key, :p_request_hash, :p_source_type, :p_source_key, :p_now_ms, :p_record_json)
ON CONFLICT (idempotency_key) DO NOTHING
