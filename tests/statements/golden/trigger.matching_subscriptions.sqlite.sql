SELECT trigger_subscriptions.subscription_id, trigger_subscriptions.handle, trigger_subscriptions.record_json
FROM trigger_subscriptions
WHERE trigger_subscriptions.source_type = :p_source_type AND likelihood(trigger_subscriptions.source_key = :p_source_key, 0.000001) AND trigger_subscriptions.enabled = :enabled_1 AND NOT (EXISTS (SELECT *
FROM trigger_deliveries
WHERE trigger_deliveries.occurrence_id = :p_occurrence_id AND trigger_deliveries.subscription_id = trigger_subscriptions.subscription_id)) ORDER BY trigger_subscriptions.registrant_scope_id, trigger_subscriptions.handle
-- enabled_1 = 1
