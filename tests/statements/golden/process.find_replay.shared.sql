SELECT process_events.sequence, process_events.payload_hash, process_events.event_json
FROM lash_process_events AS process_events
WHERE process_events.process_id = :p_process_id AND process_events.idempotency_key = :p_replay_key
