CASE WHEN json_valid(process_events.event_json) THEN json_extract(process_events.event_json, '$.semantics.wake') END IS NOT NULL OR NOT json_valid(process_events.event_json) = 1
