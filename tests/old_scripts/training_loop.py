"""A training loop of one's own.

Idioms: tf.GradientTape, model(batch, training=True), output.loss, optimizer.apply_gradients
"""

import tensorflow as tf
from material import LABELS, SMALL, TEXTS

from finetune_tf.compat import AutoTokenizer, TFAutoModelForSequenceClassification

encoding = AutoTokenizer.from_pretrained(SMALL)(TEXTS, padding=True, return_tensors="tf")
data = tf.data.Dataset.from_tensor_slices({**encoding, "labels": LABELS}).batch(8)
model = TFAutoModelForSequenceClassification.from_pretrained(SMALL)
optimizer = tf.keras.optimizers.Adam(3e-3)


@tf.function
def step(batch):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(model(batch, training=True).loss)
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
    return loss


losses = []
for _ in range(6):
    losses.append(float(tf.reduce_mean([step(batch) for batch in data])))
assert losses[-1] < 0.7 * losses[0], losses
