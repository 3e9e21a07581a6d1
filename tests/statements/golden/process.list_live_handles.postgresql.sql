SELECT process_handle_grants.session_id, process_handle_grants.scope_id, process_handle_grants.process_id, process_handle_grants.descriptor_json, processes.status
FROM process_handle_grants JOIN processes ON processes.process_id = process_handle_grants.process_id
WHERE process_handle_grants.scope_id = %(p_scope_id)s::VARCHAR AND process_handle_grants.process_id > %(p_after_process_id)s::VARCHAR AND processes.status = %(status_1)s::VARCHAR ORDER BY process_handle_grants.process_id
LIMIT %(p_limit)s::BIGINT
-- status_1 = 'running'
