"""A subclassed keras.Model that holds the encoder.

Idioms: self.bert = TFBertModel.from_pretrained(…), call(inputs) with a dict, last_hidden_state
"""

import tensorflow as tf
from material import LABELS, SMALL, TEXTS

from finetune_tf.compat import AutoTokenizer, TFBertModel


class Classifier(tf.keras.Model):
    def __init__(self):
        super().__init__()
        self.bert = TFBertModel.from_pretrained(SMALL)
        self.dense = tf.keras.layers.Dense(2)

    def call(self, inputs, training=False):
        states = self.bert(inputs, training=training).last_hidden_state
        mask = tf.cast(inputs["attention_mask"], states.dtype)[:, :, None]
        mean = tf.reduce_sum(states * mask, axis=1) / tf.reduce_sum(mask, axis=1)
        return self.dense(mean)


encoding = AutoTokenizer.from_pretrained(SMALL)(TEXTS, padding=True, return_tensors="tf")
data = tf.data.Dataset.from_tensor_slices((dict(encoding), LABELS)).batch(8)
model = Classifier()
model.compile(
    tf.keras.optimizers.Adam(3e-3),
    tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
history = model.fit(data, epochs=6, verbose=0)
assert history.history["accuracy"][-1] > 0.8, history.history
assert len(model.bert.trainable_variables) > 30
