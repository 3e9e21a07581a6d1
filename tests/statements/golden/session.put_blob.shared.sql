INSERT INTO lash_blobs AS blobs (store, hash, content)
VALUES (:lash_store_scope, :p_key, :p_content)
ON CONFLICT (store, hash) DO NOTHING
