SELECT min(runtime_effect_replay.created_at_ms) AS created_at_ms
FROM runtime_effect_replay
WHERE runtime_effect_replay.status = %(status_1)s::VARCHAR AND (%(p_scope_id)s::VARCHAR IS NULL OR runtime_effect_replay.scope_id = %(p_scope_id)s::VARCHAR)
-- status_1 = 'in_progress'
