DELETE
FROM graph_nodes
