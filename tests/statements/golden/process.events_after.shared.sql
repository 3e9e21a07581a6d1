SELECT process_events.sequence, process_events.event_json
FROM lash_process_events AS process_events
WHERE process_events.process_id = :p_process_id AND process_events.sequence > :p_after_sequence ORDER BY process_events.sequence
LIMIT :p_limit OFFSET :param_1
-- param_1 = 0
