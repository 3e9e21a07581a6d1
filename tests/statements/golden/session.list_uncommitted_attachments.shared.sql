SELECT attachment_manifest.attachment_id, attachment_manifest.session_id, attachment_manifest.canonical_uri, attachment_manifest.intent_at_ms, attachment_manifest.committed_at_ms
FROM (SELECT *
FROM lash_attachment_manifest
WHERE store = :lash_store_scope) AS attachment_manifest
WHERE attachment_manifest.committed_at_ms IS NULL AND attachment_manifest.intent_at_ms <= :p_older_than_ms ORDER BY attachment_manifest.intent_at_ms, attachment_manifest.attachment_id
