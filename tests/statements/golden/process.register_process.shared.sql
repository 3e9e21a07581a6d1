INSERT INTO lash_processes AS processes (process_id, registration_hash, owner_scope_id, created_at_ms, updated_at_ms, status, record_json)
VALUES (:p_process_id, :p_registration_hash, :p_owner_scope_id, :p_now_ms, :p_now_ms, :p_status, :p_record_json)
ON CONFLICT (process_id) DO NOTHING
