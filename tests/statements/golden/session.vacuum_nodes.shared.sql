DELETE
FROM lash_graph_nodes AS graph_nodes
WHERE graph_nodes.tombstoned != :tombstoned_1 AND graph_nodes.store = :lash_store_scope
-- tombstoned_1 = 0
