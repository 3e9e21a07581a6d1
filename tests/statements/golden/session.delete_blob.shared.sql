DELETE
FROM lash_blobs AS blobs
WHERE blobs.hash = :p_key AND blobs.store = :lash_store_scope
