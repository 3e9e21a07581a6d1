CASE WHEN json_valid(processes.record_json) THEN json_extract(processes.record_json, '$.wake_target.session_id') END = :p_session_id
