SELECT trigger_subscriptions.subscription_id, trigger_subscriptions.registrant_scope_id, trigger_subscriptions.handle, trigger_subscriptions.enabled, trigger_subscriptions.record_json
FROM trigger_subscriptions
WHERE (trigger_subscriptions.registrant_scope_id = :p_scope_id OR trigger_subscriptions.registrant_scope_id >= :p_frames_from AND trigger_subscriptions.registrant_scope_id < :p_frames_to) AND trigger_subscriptions.handle = :p_handle
