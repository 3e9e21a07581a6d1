SELECT process_events.sequence
FROM process_events
WHERE process_events.process_id = %(p_process_id)s::VARCHAR AND process_events.sequence = %(p_sequence)s::BIGINT
