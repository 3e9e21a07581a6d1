INSERT INTO lash_graph_nodes AS graph_nodes (store, seq, node_id, node_json)
VALUES (:lash_store_scope, (SELECT coalesce(max(seq), 0) + 1
FROM lash_graph_nodes
WHERE store = :lash_store_scope), :p_node_id, :p_node_json)
ON CONFLICT (store, node_id) DO NOTHING
