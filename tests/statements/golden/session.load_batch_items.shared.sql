SELECT queued_work_items.batch_id, queued_work_items.item_id, queued_work_items.payload_json
FROM (SELECT *
FROM lash_queued_work_items
WHERE store = :lash_store_scope) AS queued_work_items
WHERE queued_work_items.batch_id = :p_batch_id ORDER BY queued_work_items.item_index
