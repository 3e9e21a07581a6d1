INSERT INTO lash_graph_nodes AS graph_nodes (store, seq, node_id, node_json)
VALUES (:lash_store_scope, :p_seq, :p_node_id, :p_node_json)
ON CONFLICT (store, node_id) DO NOTHING
