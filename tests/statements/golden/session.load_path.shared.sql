WITH RECURSIVE ancestry(node_id, parent_node_id) AS
(SELECT graph_nodes.node_id AS node_id, CASE WHEN json_valid(graph_nodes.node_json) THEN json_extract(graph_nodes.node_json, '$.parent_node_id') END AS parent_node_id
FROM (SELECT *
FROM lash_graph_nodes
WHERE store = :lash_store_scope) AS graph_nodes
WHERE graph_nodes.node_id = :p_leaf_node_id AND graph_nodes.tombstoned = :tombstoned_1 UNION SELECT graph_nodes.node_id AS node_id, CASE WHEN json_valid(graph_nodes.node_json) THEN json_extract(graph_nodes.node_json, '$.parent_node_id') END AS parent_node_id
FROM (SELECT *
FROM lash_graph_nodes
WHERE store = :lash_store_scope) AS graph_nodes JOIN ancestry ON graph_nodes.node_id = ancestry.parent_node_id
WHERE likelihood(ancestry.parent_node_id IS NOT NULL, 0.000001) AND graph_nodes.tombstoned = :tombstoned_1)
SELECT graph_nodes.node_id, graph_nodes.node_json
FROM (SELECT *
FROM lash_graph_nodes
WHERE store = :lash_store_scope) AS graph_nodes JOIN ancestry ON ancestry.node_id = graph_nodes.node_id
-- tombstoned_1 = 0
