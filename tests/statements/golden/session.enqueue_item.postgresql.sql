INSERT INTO queued_work_items (batch_id, item_index, item_id, payload_json)
VALUES (%(p_batch_id)s::VARCHAR, %(p_item_index)s::BIGINT, %(p_item_id)s::VARCHAR, %(p_payload_json)s::VARCHAR)
