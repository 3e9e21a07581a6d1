DELETE
FROM lash_runtime_effect_replay AS runtime_effect_replay
WHERE runtime_effect_replay.scope_id = :p_scope_id AND runtime_effect_replay.status != :status_1
-- status_1 = 'in_progress'
