SELECT queued_work_items.batch_id, queued_work_items.item_id, queued_work_items.payload_json
FROM queued_work_items
WHERE (queued_work_items.batch_id = ANY (%(p_batch_ids)s)) ORDER BY queued_work_items.batch_id, queued_work_items.item_index
