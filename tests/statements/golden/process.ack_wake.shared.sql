INSERT INTO lash_process_wake_acks AS process_wake_acks (process_id, sequence)
VALUES (:p_process_id, :p_sequence)
ON CONFLICT (process_id, sequence) DO NOTHING
