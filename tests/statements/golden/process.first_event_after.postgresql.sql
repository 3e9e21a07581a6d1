SELECT process_events.sequence, process_events.event_json
FROM process_events
WHERE process_events.process_id = %(p_process_id)s::VARCHAR AND process_events.sequence > %(p_after_sequence)s::BIGINT AND process_events.event_type = %(p_event_type)s::VARCHAR ORDER BY process_events.sequence
LIMIT %(param_1)s::INTEGER
-- param_1 = 1
