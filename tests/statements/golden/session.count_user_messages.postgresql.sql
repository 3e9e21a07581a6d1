SELECT count(*) AS messages
FROM graph_nodes
WHERE graph_nodes.tombstoned = %(tombstoned_1)s::BIGINT AND json_extract_path_text(CAST(graph_nodes.node_json AS JSON), 'kind') = %(param_1)s::VARCHAR AND json_extract_path_text(CAST(graph_nodes.node_json AS JSON), 'event', 'Conversation', 'role') = %(param_2)s::VARCHAR
-- param_1 = 'event'
-- param_2 = 'User'
-- tombstoned_1 = 0
