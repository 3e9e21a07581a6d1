INSERT INTO blobs (hash, content)
VALUES (%(p_key)s::VARCHAR, %(p_content)s)
ON CONFLICT (hash) DO NOTHING
