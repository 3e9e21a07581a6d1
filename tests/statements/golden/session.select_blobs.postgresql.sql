SELECT blobs.hash, length(blobs.content) AS size
FROM blobs
