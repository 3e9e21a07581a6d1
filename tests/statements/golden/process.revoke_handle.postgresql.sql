DELETE
FROM process_handle_grants
WHERE process_handle_grants.scope_id = %(p_scope_id)s::VARCHAR AND process_handle_grants.process_id = %(p_process_id)s::VARCHAR
