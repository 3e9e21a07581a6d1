SELECT trigger_occurrences.occurrence_id
FROM lash_trigger_occurrences AS trigger_occurrences
WHERE trigger_occurrences.occurrence_id > :p_after_occurrence_id AND trigger_occurrences.occurred_at_ms < :p_occurred_before_ms ORDER BY trigger_occurrences.occurrence_id
LIMIT :p_limit OFFSET :param_1
-- param_1 = 0
