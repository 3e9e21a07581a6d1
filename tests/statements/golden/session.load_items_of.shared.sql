SELECT queued_work_items.batch_id, queued_work_items.item_id, queued_work_items.payload_json
FROM (SELECT *
FROM lash_queued_work_items
WHERE store = :lash_store_scope) AS queued_work_items
WHERE (queued_work_items.batch_id IN (SELECT value
FROM json_each(:p_batch_ids))) ORDER BY queued_work_items.batch_id, queued_work_items.item_index
