SELECT processes.status, processes.record_json, (SELECT coalesce(max(process_events.sequence), %(coalesce_2)s::INTEGER) AS coalesce_1
FROM process_events
WHERE process_events.process_id = %(p_process_id)s::VARCHAR) AS highest_sequence
FROM processes
WHERE processes.process_id = %(p_process_id)s::VARCHAR
-- coalesce_2 = 0
