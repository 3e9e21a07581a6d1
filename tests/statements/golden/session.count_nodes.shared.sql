SELECT count(*) AS nodes
FROM (SELECT *
FROM lash_graph_nodes
WHERE store = :lash_store_scope) AS graph_nodes
WHERE graph_nodes.tombstoned = :tombstoned_1
-- tombstoned_1 = 0
