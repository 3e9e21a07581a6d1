SELECT processes.process_id, processes.status, processes.record_json
FROM processes
WHERE json_extract_path_text(CAST(processes.record_json AS JSON), 'wake_target', 'session_id') = %(p_session_id)s::VARCHAR
