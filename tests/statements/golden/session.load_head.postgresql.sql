SELECT session_head.session_id, session_head.head_json, session_head.head_revision
FROM session_head
