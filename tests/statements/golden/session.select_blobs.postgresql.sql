SELECT blobs.hash, length(blobs.content) AS length_1
FROM blobs
