DELETE
FROM processes
WHERE processes.process_id = :p_process_id
