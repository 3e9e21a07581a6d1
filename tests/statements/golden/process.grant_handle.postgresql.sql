INSERT INTO process_handle_grants (session_id, scope_id, process_id, descriptor_json)
VALUES (%(p_session_id)s::VARCHAR, %(p_scope_id)s::VARCHAR, %(p_process_id)s::VARCHAR, %(p_descriptor_json)s::VARCHAR)
ON CONFLICT (scope_id, process_id)
DO UPDATE SET session_id = excluded.session_id, descriptor_json = excluded.descriptor_json
