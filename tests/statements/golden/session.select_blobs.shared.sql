SELECT blobs.hash, length(blobs.content) AS size
FROM (SELECT *
FROM lash_blobs
WHERE store = :lash_store_scope) AS blobs
