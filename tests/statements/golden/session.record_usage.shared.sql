INSERT INTO lash_usage_deltas AS usage_deltas (store, seq, source, model, input_tokens, output_tokens, cached_input_tokens, reasoning_tokens)
VALUES (:lash_store_scope, (SELECT coalesce(max(seq), 0) + 1
FROM lash_usage_deltas
WHERE store = :lash_store_scope), :p_source, :p_model, :p_input_tokens, :p_output_tokens, :p_cached_input_tokens, :p_reasoning_tokens)
