DELETE
FROM lash_processes AS processes
WHERE processes.process_id = :p_process_id
