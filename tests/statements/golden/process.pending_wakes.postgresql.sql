SELECT process_events.process_id, process_events.sequence, process_events.event_json, processes.record_json
FROM process_events JOIN processes ON processes.process_id = process_events.process_id
WHERE process_events.process_id >= %(p_after_process_id)s::VARCHAR AND (process_events.process_id > %(p_after_process_id)s::VARCHAR OR process_events.sequence > %(p_after_sequence)s::BIGINT) AND (CASE WHEN pg_input_is_valid(process_events.event_json, 'jsonb') THEN json_extract_path_text(CAST(process_events.event_json AS JSON), 'semantics', 'wake') WHEN pg_input_is_valid(process_events.event_json, 'json') THEN json_extract_path_text(CAST(regexp_replace(process_events.event_json, '(?<!\\)((?:\\\\)*)\\u(?:0000|[dD][89a-fA-F][0-9a-fA-F][0-9a-fA-F])', '\1\\ufffd', 'g') AS JSON), 'semantics', 'wake') END IS NOT NULL OR NOT pg_input_is_valid(process_events.event_json, 'json')) AND NOT (EXISTS (SELECT *
FROM process_wake_acks
WHERE process_wake_acks.process_id = process_events.process_id AND process_wake_acks.sequence = process_events.sequence)) ORDER BY process_events.process_id, process_events.sequence
LIMIT %(p_limit)s::BIGINT
