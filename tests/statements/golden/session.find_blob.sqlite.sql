SELECT blobs.hash
FROM blobs
WHERE blobs.hash = :p_key
