"""Labels among the inputs, and compile with nothing but an optimizer.

Idioms: Dataset of dicts with "labels", compile(optimizer=…) without a loss
"""

import tensorflow as tf
from material import LABELS, SMALL, TEXTS

from finetune_tf.compat import AutoTokenizer, TFAutoModelForSequenceClassification

encoding = AutoTokenizer.from_pretrained(SMALL)(TEXTS, padding=True, return_tensors="tf")
inside = tf.data.Dataset.from_tensor_slices({**encoding, "labels": LABELS}).batch(8)
beside = tf.data.Dataset.from_tensor_slices((dict(encoding), {"labels": LABELS})).batch(8)

model = TFAutoModelForSequenceClassification.from_pretrained(SMALL)
model.compile(optimizer=tf.keras.optimizers.Adam(3e-3))
first = model.fit(inside, epochs=3, verbose=0).history["loss"]
second = model.fit(beside, epochs=3, verbose=0).history["loss"]
assert second[-1] < 0.7 * first[0], (first, second)
assert model.predict(inside, verbose=0).logits.shape == (72, 2)
