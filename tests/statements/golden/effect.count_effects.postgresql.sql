SELECT count(*) AS steps
FROM runtime_effect_replay
WHERE %(p_status)s::VARCHAR IS NULL OR runtime_effect_replay.status = %(p_status)s::VARCHAR
