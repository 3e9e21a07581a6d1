SELECT usage_deltas.source, usage_deltas.model, sum(usage_deltas.input_tokens) AS input_tokens, sum(usage_deltas.output_tokens) AS output_tokens, sum(usage_deltas.cached_input_tokens) AS cached_input_tokens, sum(usage_deltas.reasoning_tokens) AS reasoning_tokens
FROM (SELECT *
FROM lash_usage_deltas
WHERE store = :lash_store_scope) AS usage_deltas GROUP BY usage_deltas.source, usage_deltas.model
HAVING sum(usage_deltas.input_tokens) + sum(usage_deltas.output_tokens) + sum(usage_deltas.reasoning_tokens) != :param_1 ORDER BY min(usage_deltas.seq)
-- param_1 = 0
