SELECT processes.created_at_ms, processes.registration_hash, (SELECT max(process_events.sequence) AS max_1
FROM process_events
WHERE process_events.process_id = %(p_process_id)s::VARCHAR) AS sequence
FROM processes
WHERE processes.process_id = %(p_process_id)s::VARCHAR
