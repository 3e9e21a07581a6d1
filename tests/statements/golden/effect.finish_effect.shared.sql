UPDATE lash_runtime_effect_replay AS runtime_effect_replay SET status=:p_status, outcome_json=:p_outcome_json, error_json=:p_error_json, lease_owner_id=:lease_owner_id, lease_token=:lease_token, lease_expires_at_ms=:lease_expires_at_ms, updated_at_ms=:p_now_ms
WHERE runtime_effect_replay.scope_id = :p_scope_id AND runtime_effect_replay.replay_key = :p_replay_key AND runtime_effect_replay.envelope_hash = :p_envelope_hash AND runtime_effect_replay.lease_owner_id = :p_owner_id AND runtime_effect_replay.lease_token = :p_token AND runtime_effect_replay.status = :status_1 AND runtime_effect_replay.lease_expires_at_ms > :p_now_ms
-- lease_expires_at_ms = 0
-- status_1 = 'in_progress'
