UPDATE lash_attachment_manifest AS attachment_manifest SET committed_at_ms=:p_now_ms
WHERE attachment_manifest.attachment_id = :p_attachment_id AND attachment_manifest.session_id = :p_session_id AND attachment_manifest.committed_at_ms IS NULL AND attachment_manifest.store = :lash_store_scope
