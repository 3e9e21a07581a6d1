SELECT usage_deltas.source, usage_deltas.model, CAST(sum(usage_deltas.input_tokens) AS BIGINT) AS input_tokens, CAST(sum(usage_deltas.output_tokens) AS BIGINT) AS output_tokens, CAST(sum(usage_deltas.cached_input_tokens) AS BIGINT) AS cached_input_tokens, CAST(sum(usage_deltas.reasoning_tokens) AS BIGINT) AS reasoning_tokens
FROM usage_deltas GROUP BY usage_deltas.source, usage_deltas.model
HAVING CAST(sum(usage_deltas.input_tokens) AS BIGINT) != %(param_1)s::BIGINT OR CAST(sum(usage_deltas.output_tokens) AS BIGINT) != %(param_2)s::BIGINT OR CAST(sum(usage_deltas.reasoning_tokens) AS BIGINT) != %(param_3)s::BIGINT ORDER BY min(usage_deltas.seq)
-- param_1 = 0
-- param_2 = 0
-- param_3 = 0
