INSERT INTO runtime_turn_commits (session_id, turn_id, turn_commit_hash, result_json, committed_at_ms)
VALUES (%(p_session_id)s::VARCHAR, %(p_turn_id)s::VARCHAR, %(p_commit_hash)s::VARCHAR, %(p_result_json)s::VARCHAR, %(p_committed_at_ms)s::BIGINT)
