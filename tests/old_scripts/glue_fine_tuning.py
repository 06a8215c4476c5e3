"""Sentiment as in the quick tour: an encoding and labels in a tf.data.Dataset.

Idioms: TFAutoModelForSequenceClassification, tokenizer(return_tensors="tf"),
from_tensor_slices((dict(encoding), labels)), Adam with a loss from logits, predict(…).logits
"""

import numpy as np
import tensorflow as tf
from material import LABELS, MINILM, TEXTS

from finetune_tf.compat import AutoTokenizer, TFAutoModelForSequenceClassification

tokenizer = AutoTokenizer.from_pretrained(MINILM)
model = TFAutoModelForSequenceClassification.from_pretrained(MINILM, num_labels=2)

encoding = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="tf")
data = tf.data.Dataset.from_tensor_slices((dict(encoding), LABELS))
train = data.shuffle(100, seed=0).batch(8)

model.compile(
    optimizer=tf.keras.optimizers.Adam(learning_rate=1e-4),
    loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
history = model.fit(train, epochs=4, verbose=0)
assert history.history["accuracy"][-1] > 0.9, history.history

logits = model.predict(data.batch(32), verbose=0).logits
assert logits.shape == (72, 2)
probabilities = tf.nn.softmax(logits, axis=1)
assert np.mean(np.argmax(probabilities, axis=1) == LABELS) > 0.9
