SELECT runtime_effect_replay.scope_id, runtime_effect_replay.replay_key, runtime_effect_replay.envelope_hash, runtime_effect_replay.status, runtime_effect_replay.outcome_json, runtime_effect_replay.error_json, runtime_effect_replay.lease_owner_id, runtime_effect_replay.lease_expires_at_ms, runtime_effect_replay.due_at_ms, runtime_effect_replay.created_at_ms, runtime_effect_replay.updated_at_ms
FROM runtime_effect_replay
WHERE runtime_effect_replay.scope_id = %(p_scope_id)s::VARCHAR AND runtime_effect_replay.replay_key > %(p_after_replay_key)s::VARCHAR AND (%(p_status)s::VARCHAR IS NULL OR runtime_effect_replay.status = %(p_status)s::VARCHAR) ORDER BY runtime_effect_replay.replay_key
LIMIT %(p_limit)s::BIGINT
