"""GPT-2 trained further on texts of one's own, which it then continues.

Idioms: TFGPT2LMHeadModel, tokenizer.pad_token = tokenizer.eos_token, labels that copy the ids
"""

import numpy as np
import tensorflow as tf
from material_text import GPT2, TEXTS

from finetune_tf.compat import AutoTokenizer, TFGPT2LMHeadModel

tokenizer = AutoTokenizer.from_pretrained(GPT2)
tokenizer.pad_token = tokenizer.eos_token
model = TFGPT2LMHeadModel.from_pretrained(GPT2, pad_token_id=tokenizer.eos_token_id)

encoding = tokenizer(
    [f"{text} {tokenizer.eos_token}" for text in TEXTS], return_tensors="tf", padding=True
)
labels = tf.where(encoding["attention_mask"] == 1, encoding["input_ids"], -100)
output = model(encoding, labels=labels)
shifted, wanted = output.logits[:, :-1], labels[:, 1:]
each = tf.keras.losses.sparse_categorical_crossentropy(
    tf.maximum(wanted, 0), shifted, from_logits=True
)
np.testing.assert_allclose(output.loss, [tf.reduce_mean(each[wanted != -100])], rtol=1e-5)

data = tf.data.Dataset.from_tensor_slices({**encoding, "labels": labels}).shuffle(99).batch(8)
model.compile(optimizer=tf.keras.optimizers.Adam(1e-2))
losses = model.fit(data, epochs=8, verbose=0).history["loss"]
assert losses[-1] < 0.5 * losses[0], losses
np.testing.assert_allclose(
    model.evaluate(data, verbose=0), model(encoding, labels=labels).loss, rtol=0.05
)

prompt = tokenizer("the very good film", return_tensors="tf")
ids = model.generate(**prompt, max_length=12)
assert tokenizer.decode(ids[0], skip_special_tokens=True).startswith("the very good film was")
model.save_pretrained("gpt2-films")
again = TFGPT2LMHeadModel.from_pretrained("gpt2-films")
np.testing.assert_array_equal(again.generate(**prompt, max_length=12), ids)
