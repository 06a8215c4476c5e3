"""Summaries of BART by beam search.

Idioms: TFBartForConditionalGeneration, num_beams=4, min_length, early_stopping, skip_special_tokens
"""

import numpy as np
import tensorflow as tf
from material_text import BART, TEXTS

from finetune_tf.compat import AutoTokenizer, TFBartForConditionalGeneration

tokenizer = AutoTokenizer.from_pretrained(BART)
model = TFBartForConditionalGeneration.from_pretrained(BART)
inputs = tokenizer(TEXTS[:5], max_length=24, truncation=True, padding=True, return_tensors="tf")
ids = model.generate(
    inputs["input_ids"],
    attention_mask=inputs["attention_mask"],
    num_beams=4,
    min_length=4,
    max_length=9,
    length_penalty=2.0,
    no_repeat_ngram_size=3,
    early_stopping=True,
)
assert isinstance(ids, tf.Tensor) and ids.shape[0] == 5 and 4 <= ids.shape[1] <= 9
ends = np.argmax(ids.numpy()[:, 1:] == model.config.eos_token_id, axis=1) + 1
assert all(
    row[end] == 1 and not row[end + 1 :].any() for row, end in zip(ids.numpy(), ends, strict=True)
)
summaries = [tokenizer.decode(row, skip_special_tokens=True) for row in ids]
assert all("<" not in summary for summary in summaries)
several = model.generate(**inputs, num_beams=4, num_return_sequences=2, max_length=9)
assert several.shape[0] == 10
alone = model.generate(**tokenizer(TEXTS[:1], return_tensors="tf"), num_beams=4, max_length=9)
np.testing.assert_array_equal(alone[0], several[0, : alone.shape[1]])
