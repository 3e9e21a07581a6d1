INSERT INTO blobs (hash, content)
VALUES (:p_key, :p_content)
ON CONFLICT (hash) DO NOTHING
