SELECT count(*) AS steps
FROM runtime_effect_replay
WHERE (%(p_status)s::VARCHAR IS NULL OR runtime_effect_replay.status = %(p_status)s::VARCHAR) AND runtime_effect_replay.scope_id = %(p_scope_id)s::VARCHAR
