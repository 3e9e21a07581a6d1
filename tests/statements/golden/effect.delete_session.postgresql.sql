DELETE
FROM runtime_effect_replay
WHERE runtime_effect_replay.scope_id >= %(p_scopes_from)s::VARCHAR AND runtime_effect_replay.scope_id < %(p_scopes_to)s::VARCHAR
