"""A number a text.

Idioms: num_labels=1, loss="mse", logits[:, 0]
"""

import numpy as np
import tensorflow as tf
from material import SMALL, TEXTS

from finetune_tf.compat import BertTokenizer, TFBertForSequenceClassification

lengths = np.array([len(text.split()) / 4 for text in TEXTS], "float32")
encoding = BertTokenizer.from_pretrained(SMALL)(TEXTS, padding=True, return_tensors="tf")
model = TFBertForSequenceClassification.from_pretrained(SMALL, num_labels=1)
output = model(encoding, labels=tf.constant(lengths))
np.testing.assert_allclose(output.loss, (output.logits[:, 0] - lengths) ** 2, rtol=1e-5)

model.compile(optimizer=tf.keras.optimizers.Adam(3e-3), loss="mse", metrics=["mae"])
history = model.fit(encoding, lengths, epochs=10, batch_size=8, verbose=0).history
assert history["loss"][-1] < 0.3 * history["loss"][0], history
found = model.predict(encoding, verbose=0).logits[:, 0]
assert np.corrcoef(found, lengths)[0, 1] > 0.8
