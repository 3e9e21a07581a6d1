UPDATE trigger_subscriptions SET enabled=%(p_enabled)s::BIGINT, updated_at_ms=%(p_updated_at_ms)s::BIGINT, record_json=coalesce(%(p_record_json)s::VARCHAR, trigger_subscriptions.record_json)
WHERE trigger_subscriptions.subscription_id = %(p_subscription_id)s::VARCHAR
