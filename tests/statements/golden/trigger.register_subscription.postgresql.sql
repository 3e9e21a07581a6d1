INSERT INTO trigger_subscriptions (subscription_id, registrant_scope_id, handle, source_type, source_key, enabled, created_at_ms, updated_at_ms, record_json)
VALUES (%(p_subscription_id)s::VARCHAR, %(p_registrant_scope_id)s::VARCHAR, %(p_handle)s::VARCHAR, %(p_source_type)s::VARCHAR, %(p_source_key)s::VARCHAR, %(enabled)s::BIGINT, %(p_now_ms)s::BIGINT, %(p_now_ms)s::BIGINT, %(p_record_json)s::VARCHAR)
-- enabled = 1
