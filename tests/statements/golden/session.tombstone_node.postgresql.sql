UPDATE graph_nodes SET tombstoned=%(tombstoned)s::BIGINT
WHERE graph_nodes.node_id = %(p_node_id)s::VARCHAR AND graph_nodes.tombstoned = %(tombstoned_1)s::BIGINT
-- tombstoned = 1
-- tombstoned_1 = 0
