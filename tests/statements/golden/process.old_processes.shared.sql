SELECT processes.process_id, CASE WHEN (CASE WHEN json_valid(processes.record_json) THEN json_extract(processes.record_json, '$.provenance.caused_by.type') END = :param_1) THEN CASE WHEN json_valid(processes.record_json) THEN json_extract(processes.record_json, '$.provenance.caused_by.occurrence_id') END END AS occurrence_id, CASE WHEN (NOT json_valid(processes.record_json) = 1 OR (EXISTS (SELECT *
FROM lash_process_events AS process_events
WHERE process_events.process_id = processes.process_id AND (CASE WHEN json_valid(process_events.event_json) THEN json_extract(process_events.event_json, '$.semantics.wake') END IS NOT NULL OR NOT json_valid(process_events.event_json) = 1) AND NOT (EXISTS (SELECT *
FROM lash_process_wake_acks AS process_wake_acks
WHERE process_wake_acks.process_id = process_events.process_id AND process_wake_acks.sequence = process_events.sequence))))) THEN :param_2 ELSE :param_3 END AS stays
FROM lash_processes AS processes
WHERE processes.process_id > :p_after_process_id AND processes.status != :status_1 AND processes.updated_at_ms < :p_updated_before_ms ORDER BY processes.process_id
LIMIT :p_limit OFFSET :param_4
-- param_1 = 'trigger_occurrence'
-- param_2 = 1
-- param_3 = 0
-- param_4 = 0
-- status_1 = 'running'
