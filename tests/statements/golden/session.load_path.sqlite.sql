WITH RECURSIVE anon_1(node_id, parent_node_id) AS
(SELECT graph_nodes.node_id AS node_id, CASE WHEN json_valid(graph_nodes.node_json) THEN json_extract(graph_nodes.node_json, '$.parent_node_id') END AS parent_node_id
FROM graph_nodes
WHERE graph_nodes.node_id = :p_leaf_node_id AND graph_nodes.tombstoned = :tombstoned_1 UNION SELECT graph_nodes.node_id AS node_id, CASE WHEN json_valid(graph_nodes.node_json) THEN json_extract(graph_nodes.node_json, '$.parent_node_id') END AS parent_node_id
FROM graph_nodes JOIN anon_1 ON graph_nodes.node_id = anon_1.parent_node_id
WHERE likelihood(anon_1.parent_node_id IS NOT NULL, 0.000001) AND graph_nodes.tombstoned = :tombstoned_1)
SELECT graph_nodes.node_id, graph_nodes.node_json
FROM graph_nodes JOIN anon_1 ON anon_1.node_id = graph_nodes.node_id
-- tombstoned_1 = 0
