INSERT INTO lash_process_handle_grants AS process_handle_grants (session_id, scope_id, process_id, descriptor_json)
VALUES (:p_session_id, :p_scope_id, :p_process_id, :p_descriptor_json)
ON CONFLICT (scope_id, process_id)
DO UPDATE SET session_id = excluded.session_id, descriptor_json = excluded.descriptor_json
