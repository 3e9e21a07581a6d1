SELECT queued_work_batches.batch_id
FROM queued_work_batches
WHERE queued_work_batches.session_id = %(p_session_id)s::VARCHAR AND queued_work_batches.source_key = %(p_source_key)s::VARCHAR
