SELECT runtime_effect_replay.scope_id, runtime_effect_replay.replay_key
FROM lash_runtime_effect_replay AS runtime_effect_replay
WHERE runtime_effect_replay.status = :status_1 AND runtime_effect_replay.updated_at_ms < :p_updated_before_ms AND (runtime_effect_replay.scope_id NOT IN (SELECT other.scope_id
FROM lash_runtime_effect_replay AS other
WHERE other.status = :status_2))
LIMIT :p_limit OFFSET :param_1
-- param_1 = 0
-- status_1 = 'completed'
-- status_2 = 'in_progress'
