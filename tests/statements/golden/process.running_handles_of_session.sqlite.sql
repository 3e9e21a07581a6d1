SELECT DISTINCT processes.process_id, (SELECT count(*) AS count_1
FROM process_handle_grants AS others
WHERE others.process_id = processes.process_id AND others.session_id != :p_session_id) AS held_by_others
FROM processes JOIN process_handle_grants ON process_handle_grants.process_id = processes.process_id
WHERE likelihood(process_handle_grants.session_id = :p_session_id, 0.000001) AND processes.status = :status_1 ORDER BY processes.process_id
-- status_1 = 'running'
