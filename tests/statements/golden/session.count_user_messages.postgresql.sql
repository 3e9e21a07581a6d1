SELECT count(*) AS messages
FROM graph_nodes
WHERE graph_nodes.tombstoned = %(tombstoned_1)s::BIGINT AND CASE WHEN pg_input_is_valid(graph_nodes.node_json, 'jsonb') THEN json_extract_path_text(CAST(graph_nodes.node_json AS JSON), 'kind') WHEN pg_input_is_valid(graph_nodes.node_json, 'json') THEN json_extract_path_text(CAST(regexp_replace(graph_nodes.node_json, '\\u(0000|[dD][89a-fA-F][0-9a-fA-F][0-9a-fA-F])', '\\ufffd', 'g') AS JSON), 'kind') END = %(param_1)s::VARCHAR AND CASE WHEN pg_input_is_valid(graph_nodes.node_json, 'jsonb') THEN json_extract_path_text(CAST(graph_nodes.node_json AS JSON), 'event', 'Conversation', 'role') WHEN pg_input_is_valid(graph_nodes.node_json, 'json') THEN json_extract_path_text(CAST(regexp_replace(graph_nodes.node_json, '\\u(0000|[dD][89a-fA-F][0-9a-fA-F][0-9a-fA-F])', '\\ufffd', 'g') AS JSON), 'event', 'Conversation', 'role') END = %(param_2)s::VARCHAR
-- param_1 = 'event'
-- param_2 = 'User'
-- tombstoned_1 = 0
