DELETE
FROM trigger_subscriptions
WHERE (trigger_subscriptions.registrant_scope_id = %(p_scope_id)s::VARCHAR OR trigger_subscriptions.registrant_scope_id >= %(p_frames_from)s::VARCHAR AND trigger_subscriptions.registrant_scope_id < %(p_frames_to)s::VARCHAR) AND coalesce(json_extract_path_text(CAST(trigger_subscriptions.record_json AS JSON), 'registrant', 'scope', 'session_id'), %(p_session_id)s::VARCHAR) = %(p_session_id)s::VARCHAR
