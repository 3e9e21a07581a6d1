INSERT INTO processes (process_id, registration_hash, owner_scope_id, created_at_ms, updated_at_ms, status, record_json)
VALUES (%(p_process_id)s::VARCHAR, %(p_registration_hash)s::VARCHAR, %(p_owner_scope_id)s::VARCHAR, %(p_now_ms)s::BIGINT, %(p_now_ms)s::BIGINT, %(p_status)s::VARCHAR, %(p_record_json)s::VARCHAR)
ON CONFLICT (process_id) DO NOTHING
