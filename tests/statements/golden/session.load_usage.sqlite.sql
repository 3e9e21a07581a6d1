SELECT usage_deltas.source, usage_deltas.model, CAST(sum(usage_deltas.input_tokens) AS INTEGER) AS input_tokens, CAST(sum(usage_deltas.output_tokens) AS INTEGER) AS output_tokens, CAST(sum(usage_deltas.cached_input_tokens) AS INTEGER) AS cached_input_tokens, CAST(sum(usage_deltas.reasoning_tokens) AS INTEGER) AS reasoning_tokens
FROM usage_deltas GROUP BY usage_deltas.source, usage_deltas.model
HAVING CAST(sum(usage_deltas.input_tokens) AS INTEGER) != :param_1 OR CAST(sum(usage_deltas.output_tokens) AS INTEGER) != :param_2 OR CAST(sum(usage_deltas.reasoning_tokens) AS INTEGER) != :param_3 ORDER BY min(usage_deltas.seq)
-- param_1 = 0
-- param_2 = 0
-- param_3 = 0
