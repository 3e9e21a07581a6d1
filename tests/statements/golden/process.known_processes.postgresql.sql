SELECT processes.process_id
FROM processes
WHERE (processes.process_id = ANY (%(p_process_ids)s))
