SELECT graph_nodes.node_id
FROM graph_nodes ORDER BY graph_nodes.seq DESC
LIMIT %(p_count)s::BIGINT
