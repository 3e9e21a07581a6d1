DELETE
FROM lash_runtime_effect_replay AS runtime_effect_replay
WHERE runtime_effect_replay.scope_id >= :p_scopes_from AND runtime_effect_replay.scope_id < :p_scopes_to
