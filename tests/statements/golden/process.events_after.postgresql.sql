SELECT process_events.sequence, process_events.event_json
FROM process_events
WHERE process_events.process_id = %(p_process_id)s::VARCHAR AND process_events.sequence > %(p_after_sequence)s::BIGINT ORDER BY process_events.sequence
LIMIT %(p_limit)s::BIGINT
