WITH RECURSIVE anon_1(node_id, parent_node_id, depth) AS
(SELECT graph_nodes.node_id AS node_id, CASE WHEN json_valid(graph_nodes.node_json) THEN json_extract(graph_nodes.node_json, '$.parent_node_id') END AS parent_node_id, :param_1 AS depth
FROM graph_nodes
WHERE graph_nodes.node_id = :p_leaf_node_id AND graph_nodes.tombstoned = :tombstoned_1 AND :p_limit > :param_2 UNION ALL SELECT graph_nodes.node_id AS node_id, CASE WHEN json_valid(graph_nodes.node_json) THEN json_extract(graph_nodes.node_json, '$.parent_node_id') END AS parent_node_id, anon_1.depth + :depth_1 AS anon_2
FROM graph_nodes JOIN anon_1 ON graph_nodes.node_id = anon_1.parent_node_id
WHERE likelihood(anon_1.parent_node_id IS NOT NULL, 0.000001) AND anon_1.depth + :depth_2 < :p_limit AND graph_nodes.tombstoned = :tombstoned_1)
SELECT anon_1.node_id, anon_1.parent_node_id, anon_1.depth
FROM anon_1
-- depth_1 = 1
-- depth_2 = 1
-- param_1 = 0
-- param_2 = 0
-- tombstoned_1 = 0
