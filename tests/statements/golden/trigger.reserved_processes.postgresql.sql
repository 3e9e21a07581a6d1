SELECT trigger_deliveries.occurrence_id, trigger_deliveries.process_id
FROM trigger_deliveries JOIN trigger_occurrences ON trigger_occurrences.occurrence_id = trigger_deliveries.occurrence_id
WHERE trigger_deliveries.occurrence_id > %(p_after_occurrence_id)s::VARCHAR AND trigger_deliveries.occurrence_id <= %(p_last_occurrence_id)s::VARCHAR AND trigger_occurrences.occurred_at_ms < %(p_occurred_before_ms)s::BIGINT ORDER BY trigger_deliveries.occurrence_id, trigger_deliveries.subscription_id
