SELECT processes.process_id
FROM lash_processes AS processes
WHERE (processes.process_id IN (SELECT value
FROM json_each(:p_process_ids)))
