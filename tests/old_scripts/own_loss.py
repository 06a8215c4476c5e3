"""The model's own loss handed to compile, and one metric without a list.

Idioms: loss=model.compute_loss, metrics=SparseCategoricalAccuracy(), compute_loss(labels, logits)
"""

import numpy as np
import tensorflow as tf
from material import LABELS, SMALL, TEXTS

from finetune_tf.compat import AutoTokenizer, TFBertForSequenceClassification

encoding = AutoTokenizer.from_pretrained(SMALL)(TEXTS, padding=True, return_tensors="np")
model = TFBertForSequenceClassification.from_pretrained(SMALL)
labels = np.array(LABELS)
logits = model(**encoding).logits
expected = tf.keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
np.testing.assert_allclose(model.hf_compute_loss(labels, logits), expected, rtol=1e-5)

model.compile(
    optimizer=tf.keras.optimizers.Adam(3e-3),
    loss=model.compute_loss,
    metrics=tf.keras.metrics.SparseCategoricalAccuracy("accuracy"),
)
history = model.fit(dict(encoding), labels, batch_size=8, epochs=6, verbose=0).history
assert history["accuracy"][-1] > 0.8, history
