SELECT runtime_turn_commits.session_id, runtime_turn_commits.turn_id, runtime_turn_commits.turn_commit_hash, runtime_turn_commits.result_json, runtime_turn_commits.committed_at_ms
FROM (SELECT *
FROM lash_runtime_turn_commits
WHERE store = :lash_store_scope) AS runtime_turn_commits
WHERE runtime_turn_commits.session_id = :p_session_id AND runtime_turn_commits.turn_id = :p_turn_id
