SELECT queued_work_items.batch_id, queued_work_items.item_index, queued_work_items.item_id, queued_work_items.payload_json
FROM (SELECT *
FROM lash_queued_work_items
WHERE store = :lash_store_scope) AS queued_work_items JOIN (SELECT *
FROM lash_queued_work_batches
WHERE store = :lash_store_scope) AS queued_work_batches ON queued_work_batches.batch_id = queued_work_items.batch_id
WHERE queued_work_batches.session_id = :p_session_id
