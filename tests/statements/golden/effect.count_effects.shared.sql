SELECT count(*) AS steps
FROM lash_runtime_effect_replay AS runtime_effect_replay
WHERE :p_status IS NULL OR runtime_effect_replay.status = :p_status
