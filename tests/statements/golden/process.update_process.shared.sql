UPDATE lash_processes AS processes SET updated_at_ms=:p_updated_at_ms, status=:p_status, record_json=:p_record_json
WHERE processes.process_id = :p_process_id
