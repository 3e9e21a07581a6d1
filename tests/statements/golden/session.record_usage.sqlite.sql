INSERT INTO usage_deltas (source, model, input_tokens, output_tokens, cached_input_tokens, reasoning_tokens)
VALUES (:p_source, :p_model, :p_input_tokens, :p_output_tokens, :p_cached_input_tokens, :p_reasoning_tokens)
