SELECT processes.process_id, processes.owner_scope_id, processes.status, processes.created_at_ms, processes.record_json
FROM lash_processes AS processes
