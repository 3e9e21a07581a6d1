SELECT processes.process_id, processes.record_json
FROM processes LEFT OUTER JOIN process_leases ON processes.process_id = process_leases.process_id
WHERE processes.status = %(status_1)s::VARCHAR AND (process_leases.lease_token IS NULL OR process_leases.lease_expires_at_ms <= %(p_now_ms)s::BIGINT) AND (%(p_waiting)s::BIGINT IS NULL OR CASE WHEN (json_extract_path_text(CAST(processes.record_json AS JSON), 'wait') IS NULL) THEN %(param_1)s::INTEGER ELSE %(param_2)s::INTEGER END = %(p_waiting)s::INTEGER OR NOT pg_input_is_valid(processes.record_json, 'json')) AND (%(p_definition)s::VARCHAR IS NULL OR json_extract_path_text(CAST(processes.record_json AS JSON), 'identity', 'definition') = %(p_definition)s::VARCHAR OR NOT pg_input_is_valid(processes.record_json, 'json')) AND (%(p_owner_scope_id)s::VARCHAR IS NULL OR processes.owner_scope_id = %(p_owner_scope_id)s::VARCHAR) AND (%(p_created_before_ms)s::BIGINT IS NULL OR processes.created_at_ms < %(p_created_before_ms)s::BIGINT) ORDER BY processes.created_at_ms, processes.process_id
LIMIT %(param_3)s::INTEGER
-- param_1 = 0
-- param_2 = 1
-- param_3 = 1
-- status_1 = 'running'
