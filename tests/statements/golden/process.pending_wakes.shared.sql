SELECT process_events.process_id, process_events.sequence, process_events.event_json, processes.record_json
FROM lash_process_events AS process_events JOIN lash_processes AS processes ON processes.process_id = process_events.process_id
WHERE process_events.process_id >= :p_after_process_id AND (process_events.process_id > :p_after_process_id OR process_events.sequence > :p_after_sequence) AND (CASE WHEN json_valid(process_events.event_json) THEN json_extract(process_events.event_json, '$.semantics.wake') END IS NOT NULL OR NOT json_valid(process_events.event_json) = 1) AND NOT (EXISTS (SELECT *
FROM lash_process_wake_acks AS process_wake_acks
WHERE process_wake_acks.process_id = process_events.process_id AND process_wake_acks.sequence = process_events.sequence)) ORDER BY process_events.process_id, process_events.sequence
LIMIT :p_limit OFFSET :param_1
-- param_1 = 0
