"""What a text may contain, and where it ends.

Idioms: bad_words_ids, eos_token_id=…, repetition_penalty, max_new_tokens, GenerationConfig
"""

import numpy as np
from material_text import GPT2

from finetune_tf.compat import AutoTokenizer, GenerationConfig, TFGPT2LMHeadModel

tokenizer = AutoTokenizer.from_pretrained(GPT2, padding_side="left")
model = TFGPT2LMHeadModel.from_pretrained(GPT2)
inputs = tokenizer(
    ["the film was", "a very long and good story was"], padding=True, return_tensors="tf"
)
length = inputs["input_ids"].shape[1]

plain = model.generate(**inputs, max_new_tokens=8).numpy()
np.testing.assert_array_equal(plain[:, :length], inputs["input_ids"])
word = int(plain[0, length])
bad = tokenizer([tokenizer.decode([word])], add_special_tokens=False).input_ids
without = model.generate(**inputs, max_new_tokens=8, bad_words_ids=bad).numpy()
assert word in plain[:, length:] and word not in without[:, length:]

stopped = model.generate(**inputs, max_new_tokens=8, eos_token_id=word, pad_token_id=0).numpy()
assert stopped[0, length] == word and not stopped[0, length + 1 :].any()
various = model.generate(**inputs, max_new_tokens=8, repetition_penalty=5.0, no_repeat_ngram_size=1)
tokens = [int(token) for token in various[1, length:] if token > 1]
assert len(set(tokens)) == len(tokens)
config = GenerationConfig(max_new_tokens=3, num_beams=2, pad_token_id=0)
assert model.generate(**inputs, generation_config=config).shape[1] <= length + 3
assert model.generate(**inputs, max_length=length + 2).shape[1] <= length + 2
