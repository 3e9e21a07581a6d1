SELECT max(process_events.sequence) AS sequence
FROM lash_process_events AS process_events
WHERE process_events.process_id = :p_process_id
