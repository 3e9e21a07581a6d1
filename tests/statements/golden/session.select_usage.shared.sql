SELECT usage_deltas.seq, usage_deltas.source, usage_deltas.model, usage_deltas.input_tokens, usage_deltas.output_tokens, usage_deltas.cached_input_tokens, usage_deltas.reasoning_tokens
FROM (SELECT *
FROM lash_usage_deltas
WHERE store = :lash_store_scope) AS usage_deltas
