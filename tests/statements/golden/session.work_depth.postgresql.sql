SELECT count(*) AS total, coalesce(sum(CASE WHEN (queued_work_batches.claim_token IS NOT NULL AND queued_work_batches.claim_expires_at_ms > %(p_now_ms)s::BIGINT) THEN %(param_1)s::INTEGER ELSE %(param_2)s::INTEGER END), %(coalesce_1)s::INTEGER) AS claimed, coalesce(sum(CASE WHEN (NOT (queued_work_batches.claim_token IS NOT NULL AND queued_work_batches.claim_expires_at_ms > %(p_now_ms)s::BIGINT) AND queued_work_batches.available_at_ms <= %(p_now_ms)s::BIGINT) THEN %(param_3)s::INTEGER ELSE %(param_4)s::INTEGER END), %(coalesce_2)s::INTEGER) AS ready, min(queued_work_batches.enqueued_at_ms) AS oldest_enqueued_at_ms
FROM queued_work_batches
WHERE queued_work_batches.session_id = %(p_session_id)s::VARCHAR
-- coalesce_1 = 0
-- coalesce_2 = 0
-- param_1 = 1
-- param_2 = 0
-- param_3 = 1
-- param_4 = 0
