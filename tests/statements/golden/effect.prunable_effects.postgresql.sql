SELECT runtime_effect_replay.scope_id, runtime_effect_replay.replay_key
FROM runtime_effect_replay
WHERE runtime_effect_replay.status = %(status_1)s::VARCHAR AND runtime_effect_replay.updated_at_ms < %(p_updated_before_ms)s::BIGINT AND (runtime_effect_replay.scope_id NOT IN (SELECT other.scope_id
FROM runtime_effect_replay AS other
WHERE other.status = %(status_2)s::VARCHAR))
LIMIT %(p_limit)s::BIGINT
-- status_1 = 'completed'
-- status_2 = 'in_progress'
