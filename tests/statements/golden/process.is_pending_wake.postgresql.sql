(json_extract_path_text(CAST(process_events.event_json AS JSON), 'semantics', 'wake') IS NOT NULL OR NOT pg_input_is_valid(process_events.event_json, 'json')) AND NOT (EXISTS (SELECT *
FROM process_wake_acks, process_events
WHERE process_wake_acks.process_id = process_events.process_id AND process_wake_acks.sequence = process_events.sequence))
