"""Training under a strategy.

Idioms: tf.distribute.MirroredStrategy, from_pretrained and compile in strategy.scope()
"""

import tensorflow as tf
from material import LABELS, SMALL, TEXTS

from finetune_tf.compat import AutoTokenizer, TFBertForSequenceClassification

encoding = AutoTokenizer.from_pretrained(SMALL)(TEXTS, padding=True, return_tensors="np")
data = tf.data.Dataset.from_tensor_slices((dict(encoding), LABELS)).batch(8, drop_remainder=True)
strategy = tf.distribute.MirroredStrategy(["CPU:0"])
with strategy.scope():
    model = TFBertForSequenceClassification.from_pretrained(SMALL)
    model.compile(
        optimizer=tf.keras.optimizers.Adam(3e-3),
        loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
losses = model.fit(data, epochs=6, verbose=0).history["loss"]
assert losses[-1] < 0.7 * losses[0], losses
