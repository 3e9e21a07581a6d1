UPDATE lash_graph_nodes AS graph_nodes SET tombstoned=:tombstoned
WHERE graph_nodes.node_id = :p_node_id AND graph_nodes.tombstoned = :tombstoned_1 AND graph_nodes.store = :lash_store_scope
-- tombstoned = 1
-- tombstoned_1 = 0
