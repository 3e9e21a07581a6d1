INSERT INTO process_wake_acks (process_id, sequence)
VALUES (%(p_process_id)s::VARCHAR, %(p_sequence)s::BIGINT)
ON CONFLICT (process_id, sequence) DO NOTHING
