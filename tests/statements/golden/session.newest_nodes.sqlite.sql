SELECT graph_nodes.node_id
FROM graph_nodes ORDER BY graph_nodes.seq DESC
LIMIT :p_count OFFSET :param_1
-- param_1 = 0
