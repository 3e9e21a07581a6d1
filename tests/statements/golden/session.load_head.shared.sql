SELECT session_head.session_id, session_head.head_json, session_head.head_revision
FROM (SELECT *
FROM lash_session_head
WHERE store = :lash_store_scope) AS session_head
