SELECT graph_nodes.node_id
FROM (SELECT *
FROM lash_graph_nodes
WHERE store = :lash_store_scope) AS graph_nodes ORDER BY graph_nodes.seq DESC
LIMIT :p_count OFFSET :param_1
-- param_1 = 0
