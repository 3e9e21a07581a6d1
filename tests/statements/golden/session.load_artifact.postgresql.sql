SELECT artifact_refs.artifact_ref, artifact_refs.blob_ref
FROM artifact_refs
WHERE artifact_refs.artifact_ref = %(p_artifact_ref)s::VARCHAR
