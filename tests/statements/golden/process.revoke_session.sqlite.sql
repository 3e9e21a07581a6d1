DELETE
FROM process_handle_grants
WHERE process_handle_grants.session_id = :p_session_id
