INSERT INTO session_head (singleton, session_id, head_json, head_revision)
VALUES (%(singleton)s::BIGINT, %(p_session_id)s::VARCHAR, %(p_head_json)s::VARCHAR, %(p_head_revision)s::BIGINT)
ON CONFLICT (singleton)
DO UPDATE SET session_id = excluded.session_id, head_json = excluded.head_json, head_revision = excluded.head_revision
-- singleton = 1
