SELECT process_events.sequence, process_events.event_json
FROM process_events
WHERE process_events.process_id = %(p_process_id)s::VARCHAR AND process_events.sequence > %(sequence_1)s::BIGINT ORDER BY process_events.sequence DESC
LIMIT %(p_limit)s::BIGINT
-- sequence_1 = 0
