"""Tokenizer calls from before 2021.

Idioms: encode_plus, batch_encode_plus, pad_to_max_length, BatchEncoding into the model
"""

import numpy as np
from material import SMALL, TEXTS

from finetune_tf.compat import BertTokenizer, TFBertModel

tokenizer = BertTokenizer.from_pretrained(SMALL)
one = tokenizer.encode_plus(
    "the film was good",
    add_special_tokens=True,
    max_length=12,
    pad_to_max_length=True,
    return_attention_mask=True,
    return_tensors="tf",
)
assert one["input_ids"].shape == (1, 12)
assert one["attention_mask"].numpy().sum() == 6

pair = tokenizer.encode_plus("the film", "was good")
assert pair["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1]
several = tokenizer.batch_encode_plus(TEXTS[:3], padding=True, return_tensors="tf")
pairs = tokenizer.batch_encode_plus([("the film", "was good"), ("a story", "bad")], padding=True)
assert len(pairs["input_ids"]) == 2
np.testing.assert_array_equal(
    several["input_ids"], tokenizer(TEXTS[:3], padding=True, return_tensors="np")["input_ids"]
)
assert tokenizer.encode("good", return_tensors="tf").shape == (1, 3)

output = TFBertModel.from_pretrained(SMALL)(one)
assert output.last_hidden_state.shape == (1, 12, 24)
