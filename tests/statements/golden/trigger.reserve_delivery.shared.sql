INSERT INTO lash_trigger_deliveries AS trigger_deliveries (occurrence_id, subscription_id, process_id, created_at_ms)
VALUES (:p_occurrence_id, :p_subscription_id, :p_process_id, :p_now_ms)
