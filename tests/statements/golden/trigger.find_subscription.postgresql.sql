SELECT trigger_subscriptions.subscription_id, trigger_subscriptions.registrant_scope_id, trigger_subscriptions.handle, trigger_subscriptions.enabled, trigger_subscriptions.record_json
FROM trigger_subscriptions
WHERE (trigger_subscriptions.registrant_scope_id = %(p_scope_id)s::VARCHAR OR trigger_subscriptions.registrant_scope_id >= %(p_frames_from)s::VARCHAR AND trigger_subscriptions.registrant_scope_id < %(p_frames_to)s::VARCHAR) AND trigger_subscriptions.handle = %(p_handle)s::VARCHAR
