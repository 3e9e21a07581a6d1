UPDATE processes SET updated_at_ms=%(p_updated_at_ms)s::BIGINT, status=%(p_status)s::VARCHAR, record_json=%(p_record_json)s::VARCHAR
WHERE processes.process_id = %(p_process_id)s::VARCHAR
