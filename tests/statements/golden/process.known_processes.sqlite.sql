SELECT processes.process_id
FROM processes
WHERE (processes.process_id IN (SELECT value
FROM json_each(:p_process_ids)))
