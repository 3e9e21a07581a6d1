UPDATE notes SET text=:text
WHERE notes.id = :id_1 AND (EXISTS (SELECT *
FROM (SELECT *
FROM lash_session_execution_leases
WHERE store = :lash_store_scope) AS session_execution_leases
WHERE session_execution_leases.session_id = :session_id_1 AND session_execution_leases.lease_owner_id = :lease_owner_id_1 AND session_execution_leases.lease_token = :lease_token_1 AND session_execution_leases.lease_fencing_token = :lease_fencing_token_1 AND session_execution_leases.lease_expires_at_ms > :lease_expires_at_ms_1))
-- id_1 = 7
-- lease_expires_at_ms_1 = 1000
-- lease_fencing_token_1 = 7
-- lease_owner_id_1 = 'worker-a'
-- lease_token_1 = 'c0ffee'
-- session_id_1 = 'chat-42'
-- text = 'done'
