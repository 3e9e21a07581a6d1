INSERT INTO queued_work_items (batch_id, item_index, item_id, payload_json)
VALUES (:p_batch_id, :p_item_index, :p_item_id, :p_payload_json)
