SELECT anon_1.node_id, anon_1.node_json
FROM (SELECT graph_nodes.seq AS seq, graph_nodes.node_id AS node_id, graph_nodes.node_json AS node_json, graph_nodes.tombstoned AS tombstoned
FROM (SELECT *
FROM lash_graph_nodes
WHERE store = :lash_store_scope) AS graph_nodes
WHERE graph_nodes.seq <= (SELECT graph_nodes_1.seq
FROM (SELECT *
FROM lash_graph_nodes
WHERE store = :lash_store_scope) AS graph_nodes_1
WHERE graph_nodes_1.node_id = :p_node_id AND graph_nodes_1.tombstoned = :tombstoned_1) ORDER BY graph_nodes.seq DESC
LIMIT :p_count OFFSET :param_1) AS anon_1
WHERE anon_1.tombstoned = :tombstoned_2 ORDER BY anon_1.seq DESC
-- param_1 = 0
-- tombstoned_1 = 0
-- tombstoned_2 = 0
