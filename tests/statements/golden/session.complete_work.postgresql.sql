DELETE
FROM queued_work_batches
WHERE queued_work_batches.session_id = %(p_session_id)s::VARCHAR AND queued_work_batches.claim_id = %(p_claim_id)s::VARCHAR AND queued_work_batches.claim_token = %(p_token)s::VARCHAR AND (EXISTS (SELECT *
FROM session_execution_leases
WHERE session_execution_leases.session_id = %(p_session_id)s::VARCHAR AND session_execution_leases.lease_owner_id = %(p_lease_owner_id)s::VARCHAR AND session_execution_leases.lease_token = %(p_lease_token)s::VARCHAR AND session_execution_leases.lease_fencing_token = %(p_lease_fencing_token)s::BIGINT AND session_execution_leases.lease_expires_at_ms > %(p_now_ms)s::BIGINT))
RETURNING queued_work_batches.batch_id
