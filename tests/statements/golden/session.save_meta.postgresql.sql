INSERT INTO session_meta (singleton, session_id, session_name, created_at, model, cwd, relation_json)
VALUES (%(singleton)s::BIGINT, %(p_session_id)s::VARCHAR, %(p_session_name)s::VARCHAR, %(p_created_at)s::VARCHAR, %(p_model)s::VARCHAR, %(p_cwd)s::VARCHAR, %(p_relation_json)s::VARCHAR)
ON CONFLICT (singleton)
DO UPDATE SET session_id = excluded.session_id, session_name = excluded.session_name, created_at = excluded.created_at, model = excluded.model, cwd = excluded.cwd, relation_json = excluded.relation_json
-- singleton = 1
