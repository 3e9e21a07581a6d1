process_leases.lease_token IS NOT NULL AND process_leases.lease_expires_at_ms > :p_now_ms
