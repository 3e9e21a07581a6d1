(CASE WHEN json_valid(process_events.event_json) THEN json_extract(process_events.event_json, '$.semantics.wake') END IS NOT NULL OR NOT json_valid(process_events.event_json) = 1) AND NOT (EXISTS (SELECT *
FROM lash_process_wake_acks AS process_wake_acks, lash_process_events AS process_events
WHERE process_wake_acks.process_id = process_events.process_id AND process_wake_acks.sequence = process_events.sequence))
