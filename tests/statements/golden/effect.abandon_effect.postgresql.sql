UPDATE runtime_effect_replay SET lease_owner_id=%(lease_owner_id)s::VARCHAR, lease_token=%(lease_token)s::VARCHAR, lease_expires_at_ms=%(lease_expires_at_ms)s::BIGINT, updated_at_ms=%(p_now_ms)s::BIGINT
WHERE runtime_effect_replay.scope_id = %(p_scope_id)s::VARCHAR AND runtime_effect_replay.replay_key = %(p_replay_key)s::VARCHAR AND runtime_effect_replay.envelope_hash = %(p_envelope_hash)s::VARCHAR AND runtime_effect_replay.lease_owner_id = %(p_owner_id)s::VARCHAR AND runtime_effect_replay.lease_token = %(p_token)s::VARCHAR AND runtime_effect_replay.status = %(status_1)s::VARCHAR
-- lease_expires_at_ms = 0
-- status_1 = 'in_progress'
