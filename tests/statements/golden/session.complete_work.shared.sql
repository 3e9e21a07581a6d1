DELETE
FROM lash_queued_work_batches AS queued_work_batches
WHERE queued_work_batches.session_id = :p_session_id AND queued_work_batches.claim_id = :p_claim_id AND queued_work_batches.claim_token = :p_token AND (EXISTS (SELECT *
FROM (SELECT *
FROM lash_session_execution_leases
WHERE store = :lash_store_scope) AS session_execution_leases
WHERE session_execution_leases.session_id = :p_session_id AND session_execution_leases.lease_owner_id = :p_lease_owner_id AND session_execution_leases.lease_token = :p_lease_token AND session_execution_leases.lease_fencing_token = :p_lease_fencing_token AND session_execution_leases.lease_expires_at_ms > :p_now_ms)) AND queued_work_batches.store = :lash_store_scope
RETURNING batch_id
