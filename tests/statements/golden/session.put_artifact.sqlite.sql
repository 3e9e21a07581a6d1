INSERT INTO artifact_refs (artifact_ref, blob_ref)
VALUES (:p_artifact_ref, :p_blob_ref)
ON CONFLICT (artifact_ref)
DO UPDATE SET blob_ref = excluded.blob_ref
