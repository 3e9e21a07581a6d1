INSERT INTO trigger_deliveries (occurrence_id, subscription_id, process_id, created_at_ms)
VALUES (%(p_occurrence_id)s::VARCHAR, %(p_subscription_id)s::VARCHAR, %(p_process_id)s::VARCHAR, %(p_now_ms)s::BIGINT)
