DELETE
FROM attachment_manifest
WHERE attachment_manifest.attachment_id = :p_attachment_id
