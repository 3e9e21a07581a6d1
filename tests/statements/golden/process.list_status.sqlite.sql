SELECT processes.process_id, processes.record_json, processes.status
FROM processes
WHERE processes.process_id > :p_after_process_id AND likelihood(processes.status = :p_status, 0.000001) AND (:p_waiting IS NULL OR CASE WHEN (CASE WHEN json_valid(processes.record_json) THEN json_extract(processes.record_json, '$.wait') END IS NULL) THEN :param_1 ELSE :param_2 END = :p_waiting OR NOT json_valid(processes.record_json) = 1) AND (:p_definition IS NULL OR CASE WHEN json_valid(processes.record_json) THEN json_extract(processes.record_json, '$.identity.definition') END = :p_definition AND CASE WHEN json_valid(processes.record_json) THEN json_type(processes.record_json, '$.identity.definition') = 'text' END = 1 OR NOT json_valid(processes.record_json) = 1) AND (:p_definition_json IS NULL OR CASE WHEN json_valid(processes.record_json) THEN json_extract(processes.record_json, '$.identity.definition') END = :p_definition_json AND CASE WHEN json_valid(processes.record_json) THEN json_type(processes.record_json, '$.identity.definition') = 'text' END = 0 OR NOT json_valid(processes.record_json) = 1) AND (:p_owner_scope_id IS NULL OR processes.owner_scope_id = :p_owner_scope_id) AND (:p_created_before_ms IS NULL OR processes.created_at_ms < :p_created_before_ms) ORDER BY processes.process_id
LIMIT :p_limit OFFSET :param_3
-- param_1 = 0
-- param_2 = 1
-- param_3 = 0
