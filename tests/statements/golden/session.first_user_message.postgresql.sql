SELECT graph_nodes.seq, graph_nodes.node_json
FROM graph_nodes
WHERE graph_nodes.tombstoned = %(tombstoned_1)s::BIGINT AND json_extract_path_text(CAST(graph_nodes.node_json AS JSON), 'kind') = %(param_1)s::VARCHAR AND json_extract_path_text(CAST(graph_nodes.node_json AS JSON), 'event', 'Conversation', 'role') = %(param_2)s::VARCHAR ORDER BY graph_nodes.seq
LIMIT %(param_3)s::INTEGER
-- param_1 = 'event'
-- param_2 = 'User'
-- param_3 = 1
-- tombstoned_1 = 0
