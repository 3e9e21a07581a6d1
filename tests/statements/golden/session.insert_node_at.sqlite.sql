INSERT INTO graph_nodes (seq, node_id, node_json)
VALUES (:p_seq, :p_node_id, :p_node_json)
ON CONFLICT (node_id) DO NOTHING
