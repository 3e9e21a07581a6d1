INSERT INTO lash_trigger_subscriptions AS trigger_subscriptions (subscription_id, registrant_scope_id, handle, source_type, source_key, enabled, created_at_ms, updated_at_ms, record_json)
VALUES (:p_subscription_id, :p_registrant_scope_id, :p_handle, :p_source_type, :p_source_key, :enabled, :p_now_ms, :p_now_ms, :p_record_json)
-- enabled = 1
