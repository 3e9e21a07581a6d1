SELECT queued_work_items.batch_id, queued_work_items.item_index, queued_work_items.item_id, queued_work_items.payload_json
FROM queued_work_items JOIN queued_work_batches ON queued_work_batches.batch_id = queued_work_items.batch_id
WHERE queued_work_batches.session_id = :p_session_id
