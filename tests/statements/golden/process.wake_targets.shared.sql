SELECT processes.process_id, processes.status, processes.record_json
FROM lash_processes AS processes
WHERE CASE WHEN json_valid(processes.record_json) THEN json_extract(processes.record_json, '$.wake_target.session_id') END = :p_session_id
