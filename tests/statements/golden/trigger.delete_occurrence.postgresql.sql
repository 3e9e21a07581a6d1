DELETE
FROM trigger_occurrences
WHERE trigger_occurrences.occurrence_id = %(p_occurrence_id)s::VARCHAR
