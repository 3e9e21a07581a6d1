SELECT process_leases.process_id, process_leases.lease_owner_id, process_leases.lease_token, process_leases.lease_fencing_token, process_leases.lease_claimed_at_ms, process_leases.lease_expires_at_ms
FROM lash_process_leases AS process_leases
WHERE process_leases.process_id = :p_key
