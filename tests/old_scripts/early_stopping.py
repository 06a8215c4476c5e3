"""Stop when the validation says so, and go back to the best weights.

Idioms: validation_data=(encoding, labels), EarlyStopping, ModelCheckpoint(save_weights_only)
"""

import numpy as np
import tensorflow as tf
from material import LABELS, SMALL, TEXTS

from finetune_tf.compat import AutoTokenizer, TFBertForSequenceClassification

tokenizer = AutoTokenizer.from_pretrained(SMALL)
train = tokenizer(TEXTS[:48], padding=True, return_tensors="np")
validation = tokenizer(TEXTS[48:], padding=True, return_tensors="np")
labels = np.array(LABELS)

model = TFBertForSequenceClassification.from_pretrained(SMALL)
model.compile(
    optimizer=tf.keras.optimizers.Adam(3e-3),
    loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
history = model.fit(
    train,
    labels[:48],
    validation_data=(validation, labels[48:]),
    batch_size=8,
    epochs=30,
    verbose=0,
    callbacks=[
        tf.keras.callbacks.EarlyStopping("val_accuracy", patience=2, restore_best_weights=True),
        tf.keras.callbacks.ModelCheckpoint(
            "best.weights.h5", "val_accuracy", save_best_only=True, save_weights_only=True
        ),
    ],
).history
assert len(history["loss"]) < 30
best = max(history["val_accuracy"])
assert model.evaluate(validation, labels[48:], verbose=0)[1] == best > 0.8

fresh = TFBertForSequenceClassification.from_pretrained(SMALL)
fresh.load_weights("best.weights.h5")
np.testing.assert_array_equal(fresh(**validation).logits, model(**validation).logits)
