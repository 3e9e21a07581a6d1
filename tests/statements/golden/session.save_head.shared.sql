INSERT INTO lash_session_head AS session_head (store, singleton, session_id, head_json, head_revision)
VALUES (:lash_store_scope, :singleton, :p_session_id, :p_head_json, :p_head_revision)
ON CONFLICT (store, singleton)
DO UPDATE SET session_id = excluded.session_id, head_json = excluded.head_json, head_revision = excluded.head_revision
-- singleton = 1
