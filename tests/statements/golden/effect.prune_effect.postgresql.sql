DELETE
FROM runtime_effect_replay
WHERE runtime_effect_replay.scope_id = %(p_scope_id)s::VARCHAR AND runtime_effect_replay.replay_key = %(p_replay_key)s::VARCHAR AND runtime_effect_replay.status = %(status_1)s::VARCHAR
-- status_1 = 'completed'
