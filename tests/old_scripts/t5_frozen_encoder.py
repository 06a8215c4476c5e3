"""T5 whose encoder and token embeddings stay as they are.

Idioms: model.encoder.trainable = False, model.shared, model.layers, get_encoder(), labels as y
"""

import numpy as np
import tensorflow as tf
from material_text import SOURCES, T5, TARGETS

from finetune_tf.compat import AutoTokenizer, TFT5ForConditionalGeneration

tokenizer = AutoTokenizer.from_pretrained(T5)
model = TFT5ForConditionalGeneration.from_pretrained(T5)
everything = len(model.trainable_weights)
assert model.layers[0] is model.shared
assert [layer.name for layer in model.layers[1:]] == ["encoder", "decoder"]
assert len(model.encoder.block) == len(model.get_decoder().block) == 1

model.encoder.trainable = False
assert not model.shared.trainable_variables  # the table belongs to both sides
assert 0 < len(model.trainable_weights) < everything
frozen = [np.array(weight) for weight in model.get_encoder().weights]
decoder = np.array(model.decoder.block[0].attention.query.kernel)

encoding = tokenizer([f"translate: {s}" for s in SOURCES], padding=True, return_tensors="np")
labels = tokenizer(text_target=TARGETS, padding=True, return_tensors="np")["input_ids"]
labels = np.where(labels == tokenizer.pad_token_id, -100, labels)
model.compile(optimizer=tf.keras.optimizers.Adam(1e-2))
losses = model.fit(dict(encoding), labels, epochs=6, batch_size=8, verbose=0).history["loss"]
assert losses[-1] < losses[0], losses
for before, weight in zip(frozen, model.get_encoder().weights, strict=True):
    np.testing.assert_array_equal(before, weight)
assert not np.array_equal(decoder, model.decoder.block[0].attention.query.kernel)
