INSERT INTO session_meta (singleton, session_id, session_name, created_at, model, cwd, relation_json)
VALUES (:singleton, :p_session_id, :p_session_name, :p_created_at, :p_model, :p_cwd, :p_relation_json)
ON CONFLICT (singleton) DO NOTHING
-- singleton = 1
