SELECT process_events.sequence
FROM lash_process_events AS process_events
WHERE process_events.process_id = :p_process_id AND process_events.sequence = :p_sequence
