SELECT count(*) AS nodes
FROM graph_nodes
WHERE graph_nodes.tombstoned = %(tombstoned_1)s::BIGINT
-- tombstoned_1 = 0
