SELECT queued_work_items.batch_id, queued_work_items.item_id, queued_work_items.payload_json
FROM queued_work_items
WHERE queued_work_items.batch_id = %(p_batch_id)s::VARCHAR ORDER BY queued_work_items.item_index
