INSERT INTO lash_attachment_manifest AS attachment_manifest (store, attachment_id, session_id, canonical_uri, intent_at_ms)
VALUES (:lash_store_scope, :p_attachment_id, :p_session_id, :p_canonical_uri, :p_intent_at_ms)
ON CONFLICT (store, attachment_id)
DO UPDATE SET intent_at_ms = excluded.intent_at_ms
WHERE attachment_manifest.committed_at_ms IS NULL
