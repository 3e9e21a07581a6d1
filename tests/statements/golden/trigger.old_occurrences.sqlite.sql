SELECT trigger_occurrences.occurrence_id, trigger_occurrences.occurred_at_ms
FROM trigger_occurrences
WHERE trigger_occurrences.occurred_at_ms < :p_occurred_before_ms AND trigger_occurrences.occurred_at_ms >= :p_after_ms AND (trigger_occurrences.occurred_at_ms > :p_after_ms OR trigger_occurrences.occurrence_id > :p_after_occurrence_id) ORDER BY trigger_occurrences.occurred_at_ms, trigger_occurrences.occurrence_id
LIMIT :p_limit OFFSET :param_1
-- param_1 = 0
