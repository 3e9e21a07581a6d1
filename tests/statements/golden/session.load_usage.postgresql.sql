SELECT usage_deltas.source, usage_deltas.model, CAST(sum(usage_deltas.input_tokens) AS BIGINT) AS input_tokens, CAST(sum(usage_deltas.output_tokens) AS BIGINT) AS output_tokens, CAST(sum(usage_deltas.cached_input_tokens) AS BIGINT) AS cached_input_tokens, CAST(sum(usage_deltas.reasoning_tokens) AS BIGINT) AS reasoning_tokens
FROM usage_deltas
WHERE usage_deltas.input_tokens != %(input_tokens_1)s::BIGINT OR usage_deltas.output_tokens != %(output_tokens_1)s::BIGINT OR usage_deltas.reasoning_tokens != %(reasoning_tokens_1)s::BIGINT GROUP BY usage_deltas.source, usage_deltas.model ORDER BY min(usage_deltas.seq)
-- input_tokens_1 = 0
-- output_tokens_1 = 0
-- reasoning_tokens_1 = 0
