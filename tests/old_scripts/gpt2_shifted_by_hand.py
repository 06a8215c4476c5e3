"""GPT-2 from a config, with inputs and labels shifted by hand and a loss given to compile.

Idioms: TFGPT2LMHeadModel(config), batch[:, :-1] and batch[:, 1:], loss=[loss, *[None] * n_layer]
"""

import numpy as np
import tensorflow as tf
from material_text import GPT2, TEXTS

from finetune_tf.compat import AutoTokenizer, GPT2Config, TFGPT2LMHeadModel

tokenizer = AutoTokenizer.from_pretrained(GPT2)
ids = [token for text in TEXTS for token in tokenizer.encode(text)]
examples = [ids[i : i + 12] for i in range(0, len(ids) - 12, 12)]
inputs = np.array([example[:-1] for example in examples])
labels = np.array([example[1:] for example in examples])
data = (
    tf.data.Dataset.from_tensor_slices((inputs, labels)).shuffle(99).batch(4, drop_remainder=True)
)

config = GPT2Config(
    vocab_size=tokenizer.vocab_size,
    n_embd=24,
    n_layer=2,
    n_head=2,
    n_positions=24,
    bos_token_id=1,
    eos_token_id=1,
)
model = TFGPT2LMHeadModel(config)
optimizer = tf.keras.optimizers.Adam(learning_rate=1e-2, epsilon=1e-08, clipnorm=1.0)
loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
metric = tf.keras.metrics.SparseCategoricalAccuracy("accuracy")
model.compile(optimizer=optimizer, loss=[loss, *[None] * config.n_layer], metrics=[metric])
history = model.fit(data, epochs=15, verbose=0).history
assert history["loss"][-1] < 0.5 * history["loss"][0], history
each = tf.keras.losses.sparse_categorical_crossentropy(
    labels, model(inputs).logits, from_logits=True
)
found, _ = model.evaluate(inputs, labels, verbose=0)
np.testing.assert_allclose(found, tf.reduce_mean(each), rtol=1e-4)
