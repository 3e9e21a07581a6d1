SELECT processes.process_id, processes.record_json, processes.status, CASE WHEN (EXISTS (SELECT *
FROM process_events
WHERE process_events.process_id = processes.process_id AND (CASE WHEN json_valid(process_events.event_json) THEN json_extract(process_events.event_json, '$.semantics.wake') END IS NOT NULL OR NOT json_valid(process_events.event_json) = 1) AND NOT (EXISTS (SELECT *
FROM process_wake_acks
WHERE process_wake_acks.process_id = process_events.process_id AND process_wake_acks.sequence = process_events.sequence)))) THEN :param_1 ELSE :param_2 END AS wakes
FROM processes
WHERE processes.process_id > :p_after_process_id AND processes.status != :status_1 AND processes.updated_at_ms < :p_updated_before_ms ORDER BY processes.process_id
LIMIT :p_limit OFFSET :param_3
-- param_1 = 1
-- param_2 = 0
-- param_3 = 0
-- status_1 = 'running'
