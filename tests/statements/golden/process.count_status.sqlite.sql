SELECT count(*) AS processes
FROM (SELECT processes.status AS status
FROM processes
WHERE processes.status = :p_status
LIMIT :p_up_to OFFSET :param_1) AS found
-- param_1 = 0
