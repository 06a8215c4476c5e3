"""Vectors of texts from the hidden states.

Idioms: TFAutoModel, last_hidden_state, output_hidden_states=True, mean over unmasked tokens
"""

import numpy as np
import tensorflow as tf
from material import MINILM

from finetune_tf.compat import AutoTokenizer, TFAutoModel

tokenizer = AutoTokenizer.from_pretrained(MINILM)
model = TFAutoModel.from_pretrained(MINILM)
texts = ["a man is eating food", "a man eats something", "the sky is blue"]
encoding = tokenizer(texts, padding=True, truncation=True, return_tensors="tf")
output = model(encoding, output_hidden_states=True)
assert len(output.hidden_states) == 7
np.testing.assert_array_equal(output.hidden_states[-1], output.last_hidden_state)
np.testing.assert_array_equal(output[0], output["last_hidden_state"])

mask = tf.cast(encoding["attention_mask"], tf.float32)[:, :, None]
vectors = tf.reduce_sum(output.last_hidden_state * mask, 1) / tf.reduce_sum(mask, 1)
vectors = tf.linalg.l2_normalize(vectors, axis=1).numpy()
alike = vectors @ vectors.T
assert alike[0, 1] > 0.6 > alike[0, 2]
