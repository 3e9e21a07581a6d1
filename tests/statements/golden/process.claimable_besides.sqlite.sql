SELECT processes.process_id, processes.record_json
FROM processes LEFT OUTER JOIN process_leases ON processes.process_id = process_leases.process_id
WHERE processes.status = :status_1 AND (process_leases.lease_token IS NULL OR process_leases.lease_expires_at_ms <= :p_now_ms) AND (:p_waiting IS NULL OR CASE WHEN (CASE WHEN json_valid(processes.record_json) THEN json_extract(processes.record_json, '$.wait') END IS NULL) THEN :param_1 ELSE :param_2 END = :p_waiting OR NOT json_valid(processes.record_json) = 1) AND (:p_definition IS NULL OR CASE WHEN json_valid(processes.record_json) THEN json_extract(processes.record_json, '$.identity.definition') END = :p_definition AND CASE WHEN json_valid(processes.record_json) THEN json_type(processes.record_json, '$.identity.definition') = 'text' END = 1 OR NOT json_valid(processes.record_json) = 1) AND (:p_definition_json IS NULL OR CASE WHEN json_valid(processes.record_json) THEN json_extract(processes.record_json, '$.identity.definition') END = :p_definition_json AND CASE WHEN json_valid(processes.record_json) THEN json_type(processes.record_json, '$.identity.definition') = 'text' END = 0 OR NOT json_valid(processes.record_json) = 1) AND (:p_owner_scope_id IS NULL OR processes.owner_scope_id = :p_owner_scope_id) AND (:p_created_before_ms IS NULL OR processes.created_at_ms < :p_created_before_ms) AND (processes.process_id IN (SELECT value
FROM json_each(:p_passed))) = 0 ORDER BY processes.created_at_ms, processes.process_id
LIMIT :param_3 OFFSET :param_4
-- param_1 = 0
-- param_2 = 1
-- param_3 = 1
-- param_4 = 0
-- status_1 = 'running'
