json_extract_path_text(CAST(processes.record_json AS JSON), 'wake_target', 'session_id') = %(p_session_id)s::VARCHAR
