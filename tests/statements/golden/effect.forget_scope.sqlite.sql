DELETE
FROM runtime_effect_replay
WHERE runtime_effect_replay.scope_id = :p_scope_id AND (runtime_effect_replay.status != :status_1 OR runtime_effect_replay.lease_token IS NULL AND runtime_effect_replay.due_at_ms IS NULL)
-- status_1 = 'in_progress'
