UPDATE trigger_subscriptions SET enabled=:p_enabled, updated_at_ms=:p_updated_at_ms, record_json=coalesce(:p_record_json, trigger_subscriptions.record_json)
WHERE trigger_subscriptions.subscription_id = :p_subscription_id
