SELECT runtime_effect_replay.scope_id, runtime_effect_replay.replay_key, runtime_effect_replay.envelope_hash, runtime_effect_replay.status, runtime_effect_replay.outcome_json, runtime_effect_replay.error_json, runtime_effect_replay.lease_owner_id, runtime_effect_replay.lease_expires_at_ms, runtime_effect_replay.due_at_ms, runtime_effect_replay.created_at_ms, runtime_effect_replay.updated_at_ms
FROM lash_runtime_effect_replay AS runtime_effect_replay
WHERE runtime_effect_replay.scope_id >= :p_after_scope_id AND (runtime_effect_replay.scope_id > :p_after_scope_id OR runtime_effect_replay.replay_key > :p_after_replay_key) AND (:p_status IS NULL OR runtime_effect_replay.status = :p_status) ORDER BY runtime_effect_replay.scope_id, runtime_effect_replay.replay_key
LIMIT :p_limit OFFSET :param_1
-- param_1 = 0
