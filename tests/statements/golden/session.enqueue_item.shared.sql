INSERT INTO lash_queued_work_items AS queued_work_items (store, batch_id, item_index, item_id, payload_json)
VALUES (:lash_store_scope, :p_batch_id, :p_item_index, :p_item_id, :p_payload_json)
