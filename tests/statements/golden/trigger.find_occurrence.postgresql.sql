SELECT trigger_occurrences.occurrence_id, trigger_occurrences.request_hash, trigger_occurrences.record_json
FROM trigger_occurrences
WHERE trigger_occurrences.idempotency_key = %(p_idempotency_key)s::VARCHAR
