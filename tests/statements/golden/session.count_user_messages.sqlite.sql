SELECT count(*) AS count_1
FROM graph_nodes
WHERE graph_nodes.tombstoned = :tombstoned_1 AND json_extract(graph_nodes.node_json, '$.kind') = :param_1 AND json_extract(graph_nodes.node_json, '$.event.Conversation.role') = :param_2
-- param_1 = 'event'
-- param_2 = 'User'
-- tombstoned_1 = 0
