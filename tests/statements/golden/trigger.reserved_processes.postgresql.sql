SELECT trigger_deliveries.process_id
FROM trigger_deliveries
WHERE trigger_deliveries.occurrence_id = %(p_occurrence_id)s::VARCHAR
