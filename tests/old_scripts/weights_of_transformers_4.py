"""A tf_model.h5 that transformers 4.57 wrote: load it, train on, save it for PyTorch.

Idioms: from_pretrained of a folder with tf_model.h5, config.id2label, save_pretrained
"""

import numpy as np
import tensorflow as tf
from material import TF4

from finetune_tf.compat import TFBertForSequenceClassification

folder = TF4 / "bert" / "text-classification"
model = TFBertForSequenceClassification.from_pretrained(folder)
assert model.config.id2label == {0: "no", 1: "maybe", 2: "yes"}
with np.load(folder / "expected.npz") as stored:
    inputs = {n: stored[n] for n in ("input_ids", "attention_mask", "token_type_ids")}
    expected = stored["logits"]
np.testing.assert_allclose(model(inputs).logits, expected, atol=1e-5)

model.compile(tf.keras.optimizers.Adam(1e-3), loss=model.hf_compute_loss)
labels = np.arange(len(expected)) % 3
losses = model.fit(inputs, labels, epochs=10, verbose=0).history["loss"]
assert losses[-1] < losses[0]

model.save_pretrained("trained")
again = TFBertForSequenceClassification.from_pretrained("trained")
np.testing.assert_array_equal(again(inputs).logits, model(inputs).logits)
