"""Text from language models: decoding with a cache of keys and values."""
