DELETE
FROM runtime_effect_replay
WHERE runtime_effect_replay.scope_id >= :p_scopes_from AND runtime_effect_replay.scope_id < :p_scopes_to
