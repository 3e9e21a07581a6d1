INSERT INTO lash_session_meta AS session_meta (store, singleton, session_id, session_name, created_at, model, cwd, relation_json)
VALUES (:lash_store_scope, :singleton, :p_session_id, :p_session_name, :p_created_at, :p_model, :p_cwd, :p_relation_json)
ON CONFLICT (store, singleton) DO NOTHING
-- singleton = 1
