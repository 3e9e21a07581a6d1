SELECT graph_nodes.seq, graph_nodes.node_json
FROM graph_nodes
WHERE graph_nodes.tombstoned = %(tombstoned_1)s::BIGINT AND ((graph_nodes.node_json LIKE '%%' || %(node_json_1)s::VARCHAR || '%%') OR (graph_nodes.node_json LIKE '%%' || %(node_json_2)s::VARCHAR || '%%' ESCAPE '!')) AND CASE WHEN pg_input_is_valid(graph_nodes.node_json, 'jsonb') THEN json_extract_path_text(CAST(graph_nodes.node_json AS JSON), 'kind') WHEN pg_input_is_valid(graph_nodes.node_json, 'json') THEN json_extract_path_text(CAST(regexp_replace(graph_nodes.node_json, '(?<!\\)((?:\\\\)*)\\u(?:0000|[dD][89a-fA-F][0-9a-fA-F][0-9a-fA-F])', '\1\\ufffd', 'g') AS JSON), 'kind') END = %(param_1)s::VARCHAR AND CASE WHEN pg_input_is_valid(graph_nodes.node_json, 'jsonb') THEN json_extract_path_text(CAST(graph_nodes.node_json AS JSON), 'event', 'Conversation', 'role') WHEN pg_input_is_valid(graph_nodes.node_json, 'json') THEN json_extract_path_text(CAST(regexp_replace(graph_nodes.node_json, '(?<!\\)((?:\\\\)*)\\u(?:0000|[dD][89a-fA-F][0-9a-fA-F][0-9a-fA-F])', '\1\\ufffd', 'g') AS JSON), 'event', 'Conversation', 'role') END = %(param_2)s::VARCHAR ORDER BY graph_nodes.seq
LIMIT %(param_3)s::INTEGER
-- node_json_1 = 'User'
-- node_json_2 = '\\u'
-- param_1 = 'event'
-- param_2 = 'User'
-- param_3 = 1
-- tombstoned_1 = 0
