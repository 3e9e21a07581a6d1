session_execution_leases.lease_token IS NOT NULL AND session_execution_leases.lease_expires_at_ms > :p_now_ms
