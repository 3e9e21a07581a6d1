SELECT artifact_refs.artifact_ref, artifact_refs.blob_ref
FROM (SELECT *
FROM lash_artifact_refs
WHERE store = :lash_store_scope) AS artifact_refs
WHERE artifact_refs.artifact_ref = :p_artifact_ref
