"""A training loop of one's own over T5, traced with tf.function.

Idioms: tf.GradientTape, model(ids, attention_mask=…, labels=…, training=True).loss, get_encoder()
"""

import numpy as np
import tensorflow as tf
from material_text import SOURCES, T5, TARGETS

from finetune_tf.compat import AutoTokenizer, T5Config, TFT5ForConditionalGeneration

tokenizer = AutoTokenizer.from_pretrained(T5)
assert T5Config.from_pretrained(T5).d_model == 16
model = TFT5ForConditionalGeneration.from_pretrained(T5)
encoding = tokenizer([f"translate: {s}" for s in SOURCES], padding=True, return_tensors="tf")
labels = tokenizer(text_target=TARGETS, padding=True, return_tensors="tf")["input_ids"]
labels = tf.where(labels == tokenizer.pad_token_id, -100, labels)
data = tf.data.Dataset.from_tensor_slices((dict(encoding), labels)).batch(8)
optimizer = tf.keras.optimizers.Adam(2e-2)


@tf.function
def step(inputs, labels):
    with tf.GradientTape() as tape:
        output = model(
            inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            labels=labels,
            training=True,
        )
        loss = tf.reduce_mean(output.loss)
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
    return loss


losses = [float(tf.reduce_mean([step(*batch) for batch in data])) for _ in range(12)]
assert losses[-1] < 0.5 * losses[0], losses

output = model(**encoding, labels=labels, output_hidden_states=True)
assert output.past_key_values is None and len(output.decoder_hidden_states) == 2
states = model.get_encoder()(encoding["input_ids"], attention_mask=encoding["attention_mask"])
np.testing.assert_allclose(states[0], output.encoder_last_hidden_state, atol=1e-6)
