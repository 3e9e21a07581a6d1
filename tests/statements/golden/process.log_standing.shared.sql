SELECT processes.created_at_ms, processes.registration_hash, (SELECT max(process_events.sequence) AS max_1
FROM lash_process_events AS process_events
WHERE process_events.process_id = :p_process_id) AS sequence
FROM lash_processes AS processes
WHERE processes.process_id = :p_process_id
