SELECT processes.status, processes.registration_hash, processes.record_json
FROM lash_processes AS processes
WHERE processes.process_id = :p_process_id
