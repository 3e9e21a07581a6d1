INSERT INTO runtime_turn_commits (session_id, turn_id, turn_commit_hash, result_json, committed_at_ms)
VALUES (:p_session_id, :p_turn_id, :p_commit_hash, :p_result_json, :p_committed_at_ms)
