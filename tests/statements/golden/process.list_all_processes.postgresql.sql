SELECT processes.process_id, processes.record_json
FROM processes
WHERE processes.process_id > %(p_after_process_id)s::VARCHAR AND (%(p_waiting)s::BIGINT IS NULL OR CASE WHEN (json_extract_path_text(CAST(processes.record_json AS JSON), 'wait') IS NULL) THEN %(param_1)s::INTEGER ELSE %(param_2)s::INTEGER END = %(p_waiting)s::INTEGER OR NOT pg_input_is_valid(processes.record_json, 'json')) AND (%(p_definition)s::VARCHAR IS NULL OR json_extract_path_text(CAST(processes.record_json AS JSON), 'identity', 'definition') = %(p_definition)s::VARCHAR OR NOT pg_input_is_valid(processes.record_json, 'json')) AND (%(p_owner_scope_id)s::VARCHAR IS NULL OR processes.owner_scope_id = %(p_owner_scope_id)s::VARCHAR) AND (%(p_created_before_ms)s::BIGINT IS NULL OR processes.created_at_ms < %(p_created_before_ms)s::BIGINT) ORDER BY processes.process_id
LIMIT %(p_limit)s::BIGINT
-- param_1 = 0
-- param_2 = 1
