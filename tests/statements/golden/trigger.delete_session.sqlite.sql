DELETE
FROM trigger_subscriptions
WHERE (trigger_subscriptions.registrant_scope_id = :p_scope_id OR trigger_subscriptions.registrant_scope_id >= :p_frames_from AND trigger_subscriptions.registrant_scope_id < :p_frames_to) AND coalesce(CASE WHEN CASE WHEN json_valid(trigger_subscriptions.record_json) THEN json_type(trigger_subscriptions.record_json, '$.registrant.scope.session_id') = 'text' END THEN CASE WHEN json_valid(trigger_subscriptions.record_json) THEN json_extract(trigger_subscriptions.record_json, '$.registrant.scope.session_id') END END, :p_session_id) = :p_session_id
