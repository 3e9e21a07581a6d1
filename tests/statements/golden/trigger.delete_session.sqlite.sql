DELETE
FROM trigger_subscriptions
WHERE trigger_subscriptions.registrant_scope_id = :p_scope_id OR trigger_subscriptions.registrant_scope_id >= :p_frames_from AND trigger_subscriptions.registrant_scope_id < :p_frames_to
