"""Ways to generate that are compared with PyTorch's, in transformers' words."""

PADDING, ENDS, NEW_TOKENS = 3, (2, 7), 10
OPTIONS = {
    "greedy": {"num_beams": 1},
    "penalty": {"num_beams": 1, "repetition_penalty": 1.5},
    "no repeats": {"num_beams": 1, "no_repeat_ngram_size": 2},
    "at least": {"num_beams": 1, "min_new_tokens": 6},
    "length": {"num_beams": 1, "min_length": 10},
    "forced": {"num_beams": 1, "forced_bos_token_id": 11, "forced_eos_token_id": 2},
    "suppressed": {"num_beams": 1, "suppress_tokens": [9, 10, 12, 20]},
    "not first": {"num_beams": 1, "begin_suppress_tokens": list(range(8, 20))},
    "forced, then not": {
        "num_beams": 1,
        "forced_bos_token_id": 11,
        "begin_suppress_tokens": list(range(8, 20)),
    },
    "beams": {"num_beams": 4, "num_return_sequences": 2},
    "long": {"num_beams": 3, "length_penalty": 2.0, "early_stopping": True},
    "short": {"num_beams": 3, "length_penalty": -1.0},
    "never": {"num_beams": 2, "early_stopping": "never", "repetition_penalty": 1.2},
    "beams without repeats": {"num_beams": 3, "no_repeat_ngram_size": 2, "min_new_tokens": 3},
    "forced beams": {
        "num_beams": 3,
        "forced_bos_token_id": 11,
        "forced_eos_token_id": 2,
        "min_length": 8,
        "num_return_sequences": 3,
    },
    "beams of few tokens": {
        "num_beams": 3,
        "suppress_tokens": list(range(8, 18)),
        "begin_suppress_tokens": [18, 19],
        "renormalize_logits": True,
    },
    "words of the source": {"num_beams": 1, "encoder_repetition_penalty": 1.6},
    "other words": {"num_beams": 1, "encoder_no_repeat_ngram_size": 1},
    "beams beside the source": {
        "num_beams": 3,
        "encoder_repetition_penalty": 0.7,
        "encoder_no_repeat_ngram_size": 2,
        "repetition_penalty": 1.2,
        "num_return_sequences": 2,
    },
    "every rule": {
        "num_beams": 2,
        "repetition_penalty": 1.3,
        "no_repeat_ngram_size": 3,
        "min_new_tokens": 2,
        "forced_bos_token_id": 11,
        "forced_eos_token_id": 2,
        "suppress_tokens": [9, 10],
        "begin_suppress_tokens": [12, 13],
        "renormalize_logits": True,
        "length_penalty": 0.5,
    },
}
#: Ways that compare sources and targets, which have to have one vocabulary.
OF_ONE_VOCABULARY = ("words of the source", "other words", "beams beside the source")
#: Ways with words that may not occur, by the way that generates these words without the rule.
WITHOUT_WORDS = {
    "no words": ("greedy", {"num_beams": 1}),
    "beams without words": ("beams", {"num_beams": 3, "num_return_sequences": 2}),
}


def bad_words(tokens):
    """Words of one to four tokens, most of which occur in the texts (texts, new)."""
    return [*(row[1:3].tolist() for row in tokens), tokens[0, :3].tolist(), [int(tokens[-1, 4])]]
