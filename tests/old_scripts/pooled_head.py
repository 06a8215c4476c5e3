"""A head on the pooler's output, the encoder as one layer that is frozen.

Idioms: bert([ids, mask, types])[1], .pooler_output, layer.trainable = False in a keras.Model
"""

import numpy as np
import tensorflow as tf
from material import LABELS, MINILM, TEXTS

from finetune_tf.compat import AutoTokenizer, TFBertModel

tokenizer = AutoTokenizer.from_pretrained(MINILM)
encoding = tokenizer(TEXTS, padding="max_length", max_length=16, truncation=True)
arrays = [np.array(encoding[name]) for name in ("input_ids", "attention_mask", "token_type_ids")]

bert = TFBertModel.from_pretrained(MINILM)
bert.trainable = False
inputs = [tf.keras.Input((16,), dtype="int32") for _ in range(3)]
pooled = bert(inputs)[1]
assert pooled.shape == bert(inputs).pooler_output.shape == (None, 384)
output = tf.keras.layers.Dense(2)(pooled)
model = tf.keras.Model(inputs, output)
assert len(model.trainable_variables) == 2

loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(tf.keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
before = bert.get_weights()
history = model.fit(arrays, np.array(LABELS), batch_size=8, epochs=5, verbose=0)
assert history.history["loss"][-1] < history.history["loss"][0]
assert all(np.array_equal(a, b) for a, b in zip(before, bert.get_weights(), strict=True))
