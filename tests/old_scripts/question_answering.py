"""Answers as two positions.

Idioms: TFAutoModelForQuestionAnswering, start_positions and end_positions, start_logits, argmax
"""

import numpy as np
import tensorflow as tf
from material import BAD, GOOD, SMALL, TEXTS

from finetune_tf.compat import AutoTokenizer, TFAutoModelForQuestionAnswering

tokenizer = AutoTokenizer.from_pretrained(SMALL)
encoding = tokenizer(["the film was"] * len(TEXTS), TEXTS, padding=True, return_tensors="np")
known = tokenizer.convert_tokens_to_ids([*GOOD, *BAD])
places = np.argmax(np.isin(encoding["input_ids"], known), axis=1)
inputs = {**encoding, "start_positions": places, "end_positions": places}

model = TFAutoModelForQuestionAnswering.from_pretrained(SMALL)
assert model(**inputs).loss.shape == (72,)
model.compile(optimizer=tf.keras.optimizers.Adam(3e-3))
data = tf.data.Dataset.from_tensor_slices(inputs).batch(8)
losses = model.fit(data, epochs=8, verbose=0).history["loss"]
assert losses[-1] < 0.5 * losses[0], losses

output = model.predict(data, verbose=0)
starts, ends = np.argmax(output.start_logits, axis=1), np.argmax(output.end_logits, axis=1)
assert np.mean(starts == places) > 0.8 < np.mean(ends == places)
answer = encoding["input_ids"][0][starts[0] : ends[0] + 1]
assert tokenizer.decode(answer) in TEXTS[0]
