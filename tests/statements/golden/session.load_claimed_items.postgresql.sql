SELECT queued_work_batches.batch_id, queued_work_items.item_id, queued_work_items.payload_json
FROM queued_work_batches LEFT OUTER JOIN queued_work_items ON queued_work_items.batch_id = queued_work_batches.batch_id
WHERE queued_work_batches.session_id = %(p_session_id)s::VARCHAR AND queued_work_batches.claim_id = %(p_claim_id)s::VARCHAR AND queued_work_batches.claim_token = %(p_token)s::VARCHAR ORDER BY queued_work_batches.enqueue_seq, queued_work_items.item_index
