"""Ways to generate that are compared with PyTorch's, in transformers' words."""

PADDING, ENDS, NEW_TOKENS = 3, (2, 7), 10
OPTIONS = {
    "greedy": {"num_beams": 1},
    "penalty": {"num_beams": 1, "repetition_penalty": 1.5},
    "no repeats": {"num_beams": 1, "no_repeat_ngram_size": 2},
    "at least": {"num_beams": 1, "min_new_tokens": 6},
    "beams": {"num_beams": 4, "num_return_sequences": 2},
    "long": {"num_beams": 3, "length_penalty": 2.0, "early_stopping": True},
    "short": {"num_beams": 3, "length_penalty": -1.0},
    "never": {"num_beams": 2, "early_stopping": "never", "repetition_penalty": 1.2},
    "beams without repeats": {"num_beams": 3, "no_repeat_ngram_size": 2, "min_new_tokens": 3},
}
