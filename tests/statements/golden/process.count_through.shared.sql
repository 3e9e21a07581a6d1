SELECT count(*) AS events
FROM lash_process_events AS process_events
WHERE process_events.process_id = :p_process_id AND process_events.sequence <= :p_through_sequence AND process_events.event_type = :p_event_type
