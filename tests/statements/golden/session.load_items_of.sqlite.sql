SELECT queued_work_items.batch_id, queued_work_items.item_id, queued_work_items.payload_json
FROM queued_work_items
WHERE (queued_work_items.batch_id IN (SELECT value
FROM json_each(:p_batch_ids))) ORDER BY queued_work_items.batch_id, queued_work_items.item_index
