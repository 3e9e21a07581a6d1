INSERT INTO lash_runtime_turn_commits AS runtime_turn_commits (store, session_id, turn_id, turn_commit_hash, result_json, committed_at_ms)
VALUES (:lash_store_scope, :p_session_id, :p_turn_id, :p_commit_hash, :p_result_json, :p_committed_at_ms)
