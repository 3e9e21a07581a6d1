SELECT process_handle_grants.session_id, process_handle_grants.scope_id, process_handle_grants.process_id, process_handle_grants.descriptor_json, processes.status
FROM lash_process_handle_grants AS process_handle_grants JOIN lash_processes AS processes ON processes.process_id = process_handle_grants.process_id
WHERE process_handle_grants.scope_id = :p_scope_id AND process_handle_grants.process_id > :p_after_process_id ORDER BY process_handle_grants.process_id
LIMIT :p_limit OFFSET :param_1
-- param_1 = 0
