SELECT blobs.hash
FROM (SELECT *
FROM lash_blobs
WHERE store = :lash_store_scope) AS blobs
WHERE blobs.hash = :p_key
