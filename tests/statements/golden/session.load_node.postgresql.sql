SELECT graph_nodes.seq, graph_nodes.node_id, graph_nodes.node_json
FROM graph_nodes
WHERE graph_nodes.tombstoned = %(tombstoned_1)s::BIGINT AND graph_nodes.node_id = %(p_node_id)s::VARCHAR
-- tombstoned_1 = 0
