INSERT INTO runtime_effect_replay (scope_id, replay_key, envelope_hash, status, lease_owner_id, lease_token, lease_expires_at_ms, due_at_ms, created_at_ms, updated_at_ms)
VALUES (%(p_scope_id)s::VARCHAR, %(p_replay_key)s::VARCHAR, %(p_envelope_hash)s::VARCHAR, %(status)s::VARCHAR, %(p_owner_id)s::VARCHAR, %(p_token)s::VARCHAR, %(p_expires_at_ms)s::BIGINT, %(p_due_at_ms)s::BIGINT, %(p_now_ms)s::BIGINT, %(p_now_ms)s::BIGINT)
ON CONFLICT (scope_id, replay_key)
DO UPDATE SET lease_owner_id = excluded.lease_owner_id, lease_token = excluded.lease_token, lease_expires_at_ms = excluded.lease_expires_at_ms, due_at_ms = coalesce(runtime_effect_replay.due_at_ms, excluded.due_at_ms), updated_at_ms = excluded.updated_at_ms
WHERE runtime_effect_replay.envelope_hash = %(p_envelope_hash)s::VARCHAR AND runtime_effect_replay.status = %(status_1)s::VARCHAR AND (runtime_effect_replay.lease_token IS NULL OR runtime_effect_replay.lease_expires_at_ms <= %(p_now_ms)s::BIGINT)
RETURNING runtime_effect_replay.due_at_ms
-- status = 'in_progress'
-- status_1 = 'in_progress'
