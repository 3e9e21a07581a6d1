INSERT INTO usage_deltas (source, model, input_tokens, output_tokens, cached_input_tokens, reasoning_tokens)
VALUES (%(p_source)s::VARCHAR, %(p_model)s::VARCHAR, %(p_input_tokens)s::BIGINT, %(p_output_tokens)s::BIGINT, %(p_cached_input_tokens)s::BIGINT, %(p_reasoning_tokens)s::BIGINT)
