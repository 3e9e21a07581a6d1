DELETE
FROM lash_graph_nodes AS graph_nodes
WHERE graph_nodes.store = :lash_store_scope
