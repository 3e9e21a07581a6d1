UPDATE graph_nodes SET tombstoned=:tombstoned
WHERE graph_nodes.node_id = :p_node_id AND graph_nodes.tombstoned = :tombstoned_1
-- tombstoned = 1
-- tombstoned_1 = 0
