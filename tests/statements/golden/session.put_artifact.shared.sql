INSERT INTO lash_artifact_refs AS artifact_refs (store, artifact_ref, blob_ref)
VALUES (:lash_store_scope, :p_artifact_ref, :p_blob_ref)
ON CONFLICT (store, artifact_ref)
DO UPDATE SET blob_ref = excluded.blob_ref
