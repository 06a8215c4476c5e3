"""Several labels a text.

Idioms: num_labels, BinaryCrossentropy(from_logits=True), sigmoid of the logits
"""

import numpy as np
import tensorflow as tf
from material import SMALL, TEXTS

from finetune_tf.compat import AutoTokenizer, TFAutoModelForSequenceClassification

words = ("long", "short", "very")
targets = np.array([[float(word in text) for word in words] for text in TEXTS], "float32")
encoding = AutoTokenizer.from_pretrained(SMALL)(TEXTS, padding=True, return_tensors="np")

model = TFAutoModelForSequenceClassification.from_pretrained(
    SMALL, num_labels=3, problem_type="multi_label_classification"
)
model.compile(tf.keras.optimizers.Adam(5e-3), tf.keras.losses.BinaryCrossentropy(from_logits=True))
model.fit(dict(encoding), targets, epochs=12, batch_size=8, verbose=0)
probabilities = tf.sigmoid(model.predict(dict(encoding), verbose=0).logits).numpy()
assert probabilities.shape == (72, 3)
assert ((probabilities > 0.5) == targets).mean() > 0.9
assert model(**encoding, labels=targets).loss.shape == (72,)
