DELETE
FROM blobs
WHERE blobs.hash = %(p_key)s::VARCHAR
