SELECT count(*) AS processes
FROM (SELECT processes.status AS status
FROM processes
WHERE processes.status = %(p_status)s::VARCHAR
LIMIT %(p_up_to)s::BIGINT) AS found
