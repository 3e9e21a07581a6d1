INSERT INTO artifact_refs (artifact_ref, blob_ref)
VALUES (%(p_artifact_ref)s::VARCHAR, %(p_blob_ref)s::VARCHAR)
ON CONFLICT (artifact_ref)
DO UPDATE SET blob_ref = excluded.blob_ref
