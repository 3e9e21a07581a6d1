SELECT graph_nodes.seq, graph_nodes.node_id, graph_nodes.node_json
FROM graph_nodes
WHERE graph_nodes.tombstoned = :tombstoned_1
-- tombstoned_1 = 0
