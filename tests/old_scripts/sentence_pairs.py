"""Pairs of sentences, tokenized with datasets.map and batched by prepare_tf_dataset.

Idioms: tokenizer(first, second), model.prepare_tf_dataset, metric objects, evaluate
"""

import tensorflow as tf
from material import LABELS, SMALL, TEXTS

from finetune_tf.compat import BertTokenizerFast, TFBertForSequenceClassification

tokenizer = BertTokenizerFast.from_pretrained(SMALL)
others = TEXTS[1:] + TEXTS[:1]
alike = [int(a == b) for a, b in zip(LABELS, LABELS[1:] + LABELS[:1], strict=True)]
rows = tokenizer(TEXTS, others, truncation=True, max_length=32)
assert set(rows["token_type_ids"][0]) == {0, 1}

model = TFBertForSequenceClassification.from_pretrained(SMALL)
train = model.prepare_tf_dataset({**rows, "label": alike}, batch_size=8, shuffle=True)
model.compile(
    optimizer=tf.keras.optimizers.Adam(5e-3),
    metrics=[tf.keras.metrics.SparseCategoricalAccuracy("accuracy")],
)
losses = model.fit(train, epochs=8, verbose=0).history["loss"]
assert losses[-1] < 0.7 * losses[0], losses
loss, accuracy = model.evaluate(train, verbose=0)
assert accuracy > 0.7
