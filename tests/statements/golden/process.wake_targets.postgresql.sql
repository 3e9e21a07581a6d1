SELECT processes.process_id, processes.status, processes.record_json
FROM processes
WHERE CASE WHEN pg_input_is_valid(processes.record_json, 'jsonb') THEN json_extract_path_text(CAST(processes.record_json AS JSON), 'wake_target', 'session_id') WHEN pg_input_is_valid(processes.record_json, 'json') THEN json_extract_path_text(CAST(regexp_replace(processes.record_json, '(?<!\\)((?:\\\\)*)\\u(?:0000|[dD][89a-fA-F][0-9a-fA-F][0-9a-fA-F])', '\1\\ufffd', 'g') AS JSON), 'wake_target', 'session_id') END = %(p_session_id)s::VARCHAR
