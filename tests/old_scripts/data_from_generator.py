"""Examples that come from a generator, in batches padded to their longest row.

Idioms: Dataset.from_generator, padded_batch, ({"input_ids": …}, label)
"""

import tensorflow as tf
from material import LABELS, SMALL, TEXTS

from finetune_tf.compat import AutoTokenizer, TFBertForSequenceClassification

tokenizer = AutoTokenizer.from_pretrained(SMALL)


def examples():
    for text, label in zip(TEXTS, LABELS, strict=True):
        encoding = tokenizer(text)
        yield (
            {name: encoding[name] for name in ("input_ids", "attention_mask", "token_type_ids")},
            label,
        )


types = {
    name: tf.TensorSpec((None,), tf.int32)
    for name in ("input_ids", "attention_mask", "token_type_ids")
}
data = tf.data.Dataset.from_generator(
    examples, output_signature=(types, tf.TensorSpec((), tf.int64))
).padded_batch(8)

model = TFBertForSequenceClassification.from_pretrained(SMALL)
loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(optimizer=tf.keras.optimizers.Adam(3e-3), loss=loss, metrics=["accuracy"])
history = model.fit(data, epochs=6, verbose=0)
assert history.history["accuracy"][-1] > 0.8, history.history
