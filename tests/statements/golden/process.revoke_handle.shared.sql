DELETE
FROM lash_process_handle_grants AS process_handle_grants
WHERE process_handle_grants.scope_id = :p_scope_id AND process_handle_grants.process_id = :p_process_id
