"""Only the classifier learns.

Idioms: model.layers[0].trainable = False, for layer in model.layers: if layer.name == "bert",
model.bert.trainable, freezing after compile
"""

import numpy as np
import tensorflow as tf
from material import LABELS, MINILM, TEXTS

from finetune_tf.compat import AutoTokenizer, TFBertForSequenceClassification

encoding = AutoTokenizer.from_pretrained(MINILM)(TEXTS, padding=True, return_tensors="np")
model = TFBertForSequenceClassification.from_pretrained(MINILM, num_labels=2)
model.layers[0].trainable = False
assert [v.path for v in model.trainable_variables] == [
    "classifier/dense/kernel",
    "classifier/dense/bias",
]
for layer in model.layers:
    if layer.name == "bert":
        layer.trainable = True
assert len(model.trainable_variables) > 100

model.compile(
    tf.keras.optimizers.Adam(5e-3),
    tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
)
model.bert.trainable = False  # too late in Keras, in time here
before = np.array(model.bert.encoder.layer[0].attention.query.kernel)
losses = model.fit(dict(encoding), np.array(LABELS), epochs=3, verbose=0).history["loss"]
assert losses[-1] < losses[0]
np.testing.assert_array_equal(before, model.bert.encoder.layer[0].attention.query.kernel)
