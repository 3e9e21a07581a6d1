SELECT count(*) AS total, coalesce(sum(CASE WHEN (queued_work_batches.claim_token IS NOT NULL AND queued_work_batches.claim_expires_at_ms > :p_now_ms) THEN :param_1 ELSE :param_2 END), :coalesce_1) AS claimed, coalesce(sum(CASE WHEN (NOT (queued_work_batches.claim_token IS NOT NULL AND queued_work_batches.claim_expires_at_ms > :p_now_ms) AND queued_work_batches.available_at_ms <= :p_now_ms) THEN :param_3 ELSE :param_4 END), :coalesce_2) AS ready, min(queued_work_batches.enqueued_at_ms) AS oldest_enqueued_at_ms
FROM queued_work_batches
WHERE queued_work_batches.session_id = :p_session_id
-- coalesce_1 = 0
-- coalesce_2 = 0
-- param_1 = 1
-- param_2 = 0
-- param_3 = 1
-- param_4 = 0
