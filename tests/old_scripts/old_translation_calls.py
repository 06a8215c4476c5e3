"""Calls for translation from before 2022.

Idioms: as_target_tokenizer, prepare_seq2seq_batch, decoder_input_ids and labels given by hand
"""

import numpy as np
import tensorflow as tf
from material_text import MARIAN, SOURCES, TARGETS

from finetune_tf.compat import AutoTokenizer, TFMarianMTModel

tokenizer = AutoTokenizer.from_pretrained(MARIAN)
model = TFMarianMTModel.from_pretrained(MARIAN)
batch = tokenizer.prepare_seq2seq_batch(SOURCES[:6], TARGETS[:6], return_tensors="tf")
inputs = tokenizer(SOURCES[:6], padding=True, return_tensors="tf")
with tokenizer.as_target_tokenizer():
    labels = tokenizer(TARGETS[:6], padding=True, return_tensors="tf")["input_ids"]
np.testing.assert_array_equal(batch["labels"], labels)
np.testing.assert_array_equal(batch["input_ids"], inputs["input_ids"])

decoder_input_ids = model.prepare_decoder_input_ids_from_labels(labels)
assert decoder_input_ids[0, 0] == model.config.decoder_start_token_id
by_hand = model(inputs, decoder_input_ids=decoder_input_ids)
output = model(batch)
np.testing.assert_array_equal(by_hand.logits, output.logits)
wanted = tf.where(labels == tokenizer.pad_token_id, -100, labels)
np.testing.assert_allclose(model(inputs, labels=wanted).loss, output.loss, rtol=1e-6)

model.compile(optimizer=tf.keras.optimizers.Adam(1e-2))
losses = model.fit(dict(batch), epochs=5, verbose=0).history["loss"]
np.testing.assert_allclose(losses[0], output.loss[0], rtol=1e-5)
assert losses[-1] < losses[0]
translated = model.generate(**inputs)
assert len([tokenizer.decode(t, skip_special_tokens=True) for t in translated]) == 6
