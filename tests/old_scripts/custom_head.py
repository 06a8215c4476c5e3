"""A user's own head on the first token's vector, in a functional keras.Model.

Idioms: TFBertModel inside keras.Model, bert(ids, attention_mask=mask)[0][:, 0, :], model.save
"""

import numpy as np
import tensorflow as tf
from material import LABELS, SMALL, TEXTS

from finetune_tf.compat import AutoTokenizer, TFBertModel

tokenizer = AutoTokenizer.from_pretrained(SMALL)
encoding = tokenizer(TEXTS, padding="max_length", max_length=16, truncation=True)
ids, mask = np.array(encoding["input_ids"]), np.array(encoding["attention_mask"])

bert = TFBertModel.from_pretrained(SMALL)
input_ids = tf.keras.layers.Input(shape=(16,), dtype=tf.int32, name="input_ids")
attention_mask = tf.keras.layers.Input(shape=(16,), dtype=tf.int32, name="attention_mask")
first = bert(input_ids, attention_mask=attention_mask)[0][:, 0, :]
hidden = tf.keras.layers.Dense(16, activation="relu")(first)
output = tf.keras.layers.Dense(1, activation="sigmoid")(tf.keras.layers.Dropout(0.1)(hidden))
model = tf.keras.Model(inputs=[input_ids, attention_mask], outputs=output)

model.compile(tf.keras.optimizers.Adam(3e-3), loss="binary_crossentropy", metrics=["accuracy"])
history = model.fit([ids, mask], np.array(LABELS), batch_size=8, epochs=8, verbose=0)
assert history.history["accuracy"][-1] > 0.8, history.history

model.save("custom.keras")
again = tf.keras.models.load_model("custom.keras")
np.testing.assert_allclose(
    again.predict([ids, mask], verbose=0), model.predict([ids, mask], verbose=0), atol=1e-6
)
