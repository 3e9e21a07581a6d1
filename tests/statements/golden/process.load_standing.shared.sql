SELECT processes.status, processes.record_json, (SELECT coalesce(max(process_events.sequence), :coalesce_2) AS coalesce_1
FROM lash_process_events AS process_events
WHERE process_events.process_id = :p_process_id) AS highest_sequence
FROM lash_processes AS processes
WHERE processes.process_id = :p_process_id
-- coalesce_2 = 0
