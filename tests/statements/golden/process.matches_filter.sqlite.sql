(:p_waiting IS NULL OR CASE WHEN (CASE WHEN json_valid(processes.record_json) THEN json_extract(processes.record_json, '$.wait') END IS NULL) THEN :param_1 ELSE :param_2 END = :p_waiting) AND (:p_definition IS NULL OR CASE WHEN json_valid(processes.record_json) THEN json_extract(processes.record_json, '$.identity.definition') END = :p_definition) AND (:p_owner_scope_id IS NULL OR processes.owner_scope_id = :p_owner_scope_id) AND (:p_created_before_ms IS NULL OR processes.created_at_ms < :p_created_before_ms)
-- param_1 = 0
-- param_2 = 1
