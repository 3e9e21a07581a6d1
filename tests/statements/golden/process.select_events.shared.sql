SELECT process_events.process_id, process_events.sequence, process_events.event_type, process_events.occurred_at_ms, process_events.event_json
FROM lash_process_events AS process_events
