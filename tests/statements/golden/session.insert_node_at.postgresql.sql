INSERT INTO graph_nodes (seq, node_id, node_json)
VALUES (%(p_seq)s::BIGINT, %(p_node_id)s::VARCHAR, %(p_node_json)s::VARCHAR)
ON CONFLICT (node_id) DO NOTHING
