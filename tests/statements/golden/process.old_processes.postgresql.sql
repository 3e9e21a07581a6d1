SELECT processes.process_id, processes.record_json, processes.status, CASE WHEN (EXISTS (SELECT *
FROM process_events
WHERE process_events.process_id = processes.process_id AND (CASE WHEN pg_input_is_valid(process_events.event_json, 'jsonb') THEN json_extract_path_text(CAST(process_events.event_json AS JSON), 'semantics', 'wake') WHEN pg_input_is_valid(process_events.event_json, 'json') THEN json_extract_path_text(CAST(regexp_replace(process_events.event_json, '(?<!\\)((?:\\\\)*)\\u(?:0000|[dD][89a-fA-F][0-9a-fA-F][0-9a-fA-F])', '\1\\ufffd', 'g') AS JSON), 'semantics', 'wake') END IS NOT NULL OR NOT pg_input_is_valid(process_events.event_json, 'json')) AND NOT (EXISTS (SELECT *
FROM process_wake_acks
WHERE process_wake_acks.process_id = process_events.process_id AND process_wake_acks.sequence = process_events.sequence)))) THEN %(param_1)s::INTEGER ELSE %(param_2)s::INTEGER END AS wakes
FROM processes
WHERE processes.process_id > %(p_after_process_id)s::VARCHAR AND processes.status != %(status_1)s::VARCHAR AND processes.updated_at_ms < %(p_updated_before_ms)s::BIGINT ORDER BY processes.process_id
LIMIT %(p_limit)s::BIGINT
-- param_1 = 1
-- param_2 = 0
-- status_1 = 'running'
