INSERT INTO runtime_effect_replay (scope_id, replay_key, envelope_hash, status, outcome_json, error_json, lease_expires_at_ms, created_at_ms, updated_at_ms)
VALUES (%(p_scope_id)s::VARCHAR, %(p_replay_key)s::VARCHAR, %(p_envelope_hash)s::VARCHAR, %(p_status)s::VARCHAR, %(p_outcome_json)s::VARCHAR, %(p_error_json)s::VARCHAR, %(lease_expires_at_ms)s::BIGINT, %(p_now_ms)s::BIGINT, %(p_now_ms)s::BIGINT)
ON CONFLICT (scope_id, replay_key)
DO UPDATE SET status = excluded.status, outcome_json = excluded.outcome_json, error_json = excluded.error_json, lease_owner_id = %(param_1)s::VARCHAR, lease_token = %(param_2)s::VARCHAR, lease_expires_at_ms = %(param_3)s::BIGINT, updated_at_ms = excluded.updated_at_ms
WHERE runtime_effect_replay.envelope_hash = %(p_envelope_hash)s::VARCHAR AND runtime_effect_replay.status = %(status_1)s::VARCHAR AND (runtime_effect_replay.lease_token IS NULL OR runtime_effect_replay.lease_expires_at_ms <= %(p_now_ms)s::BIGINT)
RETURNING runtime_effect_replay.replay_key
-- lease_expires_at_ms = 0
-- param_3 = 0
-- status_1 = 'in_progress'
