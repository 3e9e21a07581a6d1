SELECT trigger_occurrences.occurrence_id
FROM trigger_occurrences
WHERE trigger_occurrences.occurrence_id > %(p_after_occurrence_id)s::VARCHAR AND trigger_occurrences.occurred_at_ms < %(p_occurred_before_ms)s::BIGINT ORDER BY trigger_occurrences.occurrence_id
LIMIT %(p_limit)s::BIGINT
