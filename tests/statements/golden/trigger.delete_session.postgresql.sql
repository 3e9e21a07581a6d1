DELETE
FROM trigger_subscriptions
WHERE trigger_subscriptions.registrant_scope_id = %(p_scope_id)s::VARCHAR OR trigger_subscriptions.registrant_scope_id >= %(p_frames_from)s::VARCHAR AND trigger_subscriptions.registrant_scope_id < %(p_frames_to)s::VARCHAR
