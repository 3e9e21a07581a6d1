SELECT trigger_occurrences.occurrence_id, trigger_occurrences.occurred_at_ms
FROM trigger_occurrences
WHERE trigger_occurrences.occurred_at_ms < %(p_occurred_before_ms)s::BIGINT AND trigger_occurrences.occurred_at_ms >= %(p_after_ms)s::BIGINT AND (trigger_occurrences.occurred_at_ms > %(p_after_ms)s::BIGINT OR trigger_occurrences.occurrence_id > %(p_after_occurrence_id)s::VARCHAR) ORDER BY trigger_occurrences.occurred_at_ms, trigger_occurrences.occurrence_id
LIMIT %(p_limit)s
