SELECT process_events.sequence, process_events.event_json
FROM lash_process_events AS process_events
WHERE process_events.process_id = :p_process_id AND process_events.sequence > :p_after_sequence AND process_events.event_type = :p_event_type ORDER BY process_events.sequence
LIMIT :param_1 OFFSET :param_2
-- param_1 = 1
-- param_2 = 0
