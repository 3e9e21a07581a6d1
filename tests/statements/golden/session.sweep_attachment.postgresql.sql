DELETE
FROM attachment_manifest
WHERE attachment_manifest.attachment_id = %(p_attachment_id)s::VARCHAR AND attachment_manifest.committed_at_ms IS NULL AND attachment_manifest.intent_at_ms <= %(p_older_than_ms)s::BIGINT
