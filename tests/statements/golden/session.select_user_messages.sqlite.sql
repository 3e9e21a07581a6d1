SELECT graph_nodes.seq, graph_nodes.node_json
FROM graph_nodes
WHERE graph_nodes.tombstoned = :tombstoned_1 AND ((graph_nodes.node_json LIKE '%' || :node_json_1 || '%') OR (graph_nodes.node_json LIKE '%' || :node_json_2 || '%' ESCAPE '!')) AND CASE WHEN json_valid(graph_nodes.node_json) THEN json_extract(CASE WHEN instr(graph_nodes.node_json, '\u0000') THEN replace(replace(replace(graph_nodes.node_json, '\\', char(1)), '\u0000', '\ufffd'), char(1), '\\') ELSE graph_nodes.node_json END, '$.kind') END = :param_1 AND CASE WHEN json_valid(graph_nodes.node_json) THEN json_extract(CASE WHEN instr(graph_nodes.node_json, '\u0000') THEN replace(replace(replace(graph_nodes.node_json, '\\', char(1)), '\u0000', '\ufffd'), char(1), '\\') ELSE graph_nodes.node_json END, '$.event.Conversation.role') END = :param_2
-- node_json_1 = 'User'
-- node_json_2 = '\\u'
-- param_1 = 'event'
-- param_2 = 'User'
-- tombstoned_1 = 0
