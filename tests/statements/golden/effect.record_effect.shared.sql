INSERT INTO lash_runtime_effect_replay AS runtime_effect_replay (scope_id, replay_key, envelope_hash, status, outcome_json, error_json, lease_expires_at_ms, created_at_ms, updated_at_ms)
VALUES (:p_scope_id, :p_replay_key, :p_envelope_hash, :p_status, :p_outcome_json, :p_error_json, :lease_expires_at_ms, :p_now_ms, :p_now_ms)
ON CONFLICT (scope_id, replay_key)
DO UPDATE SET status = excluded.status, outcome_json = excluded.outcome_json, error_json = excluded.error_json, lease_owner_id = :param_1, lease_token = :param_2, lease_expires_at_ms = :param_3, updated_at_ms = excluded.updated_at_ms
WHERE runtime_effect_replay.envelope_hash = :p_envelope_hash AND runtime_effect_replay.status = :status_1 AND (runtime_effect_replay.lease_token IS NULL OR runtime_effect_replay.lease_expires_at_ms <= :p_now_ms)
RETURNING replay_key
-- lease_expires_at_ms = 0
-- param_3 = 0
-- status_1 = 'in_progress'
