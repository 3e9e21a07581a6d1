SELECT artifact_refs.artifact_ref, artifact_refs.blob_ref
FROM artifact_refs
