SELECT graph_nodes.seq, graph_nodes.node_id, graph_nodes.node_json
FROM (SELECT *
FROM lash_graph_nodes
WHERE store = :lash_store_scope) AS graph_nodes
WHERE graph_nodes.tombstoned = :tombstoned_1
-- tombstoned_1 = 0
