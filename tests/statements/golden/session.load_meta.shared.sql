SELECT session_meta.session_id, session_meta.session_name, session_meta.created_at, session_meta.model, session_meta.cwd, session_meta.relation_json
FROM (SELECT *
FROM lash_session_meta
WHERE store = :lash_store_scope) AS session_meta
