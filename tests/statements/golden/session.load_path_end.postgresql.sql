WITH RECURSIVE anon_1(node_id, parent_node_id, depth) AS
(SELECT graph_nodes.node_id AS node_id, CASE WHEN pg_input_is_valid(graph_nodes.node_json, 'jsonb') THEN json_extract_path_text(CAST(graph_nodes.node_json AS JSON), 'parent_node_id') WHEN pg_input_is_valid(graph_nodes.node_json, 'json') THEN json_extract_path_text(CAST(regexp_replace(graph_nodes.node_json, '(?<!\\)((?:\\\\)*)\\u(?:0000|[dD][89a-fA-F][0-9a-fA-F][0-9a-fA-F])', '\1\\ufffd', 'g') AS JSON), 'parent_node_id') END AS parent_node_id, %(param_1)s::BIGINT AS depth
FROM graph_nodes
WHERE graph_nodes.node_id = %(p_leaf_node_id)s::VARCHAR AND graph_nodes.tombstoned = %(tombstoned_1)s::BIGINT AND %(p_limit)s::BIGINT > %(param_2)s::BIGINT UNION ALL SELECT graph_nodes.node_id AS node_id, CASE WHEN pg_input_is_valid(graph_nodes.node_json, 'jsonb') THEN json_extract_path_text(CAST(graph_nodes.node_json AS JSON), 'parent_node_id') WHEN pg_input_is_valid(graph_nodes.node_json, 'json') THEN json_extract_path_text(CAST(regexp_replace(graph_nodes.node_json, '(?<!\\)((?:\\\\)*)\\u(?:0000|[dD][89a-fA-F][0-9a-fA-F][0-9a-fA-F])', '\1\\ufffd', 'g') AS JSON), 'parent_node_id') END AS parent_node_id, anon_1.depth + %(depth_1)s::BIGINT AS anon_2
FROM graph_nodes JOIN anon_1 ON graph_nodes.node_id = anon_1.parent_node_id
WHERE anon_1.parent_node_id IS NOT NULL AND anon_1.depth + %(depth_2)s::BIGINT < %(p_limit)s::BIGINT AND graph_nodes.tombstoned = %(tombstoned_1)s::BIGINT)
SELECT graph_nodes.node_id, graph_nodes.node_json
FROM graph_nodes JOIN anon_1 ON anon_1.node_id = graph_nodes.node_id
-- depth_1 = 1
-- depth_2 = 1
-- param_1 = 0
-- param_2 = 0
-- tombstoned_1 = 0
