WITH RECURSIVE anon_1(node_id, parent_node_id) AS
(SELECT graph_nodes.node_id AS node_id, json_extract_path_text(CAST(graph_nodes.node_json AS JSON), 'parent_node_id') AS parent_node_id
FROM graph_nodes
WHERE graph_nodes.node_id = %(p_leaf_node_id)s::VARCHAR AND graph_nodes.tombstoned = %(tombstoned_1)s::BIGINT UNION SELECT graph_nodes.node_id AS node_id, json_extract_path_text(CAST(graph_nodes.node_json AS JSON), 'parent_node_id') AS parent_node_id
FROM graph_nodes JOIN anon_1 ON graph_nodes.node_id = anon_1.parent_node_id
WHERE anon_1.parent_node_id IS NOT NULL AND graph_nodes.tombstoned = %(tombstoned_1)s::BIGINT)
SELECT anon_1.node_id, anon_1.parent_node_id
FROM anon_1
-- tombstoned_1 = 0
