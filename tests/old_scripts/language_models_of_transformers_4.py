"""A tf_model.h5 of GPT-2 and one of T5 that transformers 4.57 wrote.

Idioms: from_pretrained of a folder with tf_model.h5, model(inputs, labels=…).loss, generate
"""

import numpy as np
import tensorflow as tf
from material_text import TF4

from finetune_tf.compat import TFGPT2LMHeadModel, TFT5ForConditionalGeneration

for cls, folder in (
    (TFGPT2LMHeadModel, TF4 / "gpt2" / "text-generation"),
    (TFT5ForConditionalGeneration, TF4 / "t5" / "text2text-generation"),
):
    model = cls.from_pretrained(folder)
    with np.load(folder / "expected.npz") as stored:
        inputs = {name: stored[name] for name in ("input_ids", "attention_mask")}
        labels, logits, loss = stored["labels"], stored["logits"], stored["loss"]
        row, greedy = inputs["input_ids"][:1], stored["generated/greedy"]
    output = model(inputs, labels=tf.constant(labels))
    np.testing.assert_allclose(output.logits, logits, atol=1e-5)
    np.testing.assert_allclose(output.loss, loss, rtol=1e-5)
    found = model.generate(row, max_length=16)[0]
    np.testing.assert_array_equal(found, greedy[0, : len(found)])

    model.compile(tf.keras.optimizers.Adam(1e-2))
    losses = model.fit({**inputs, "labels": labels}, epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    model.save_pretrained("trained")
    again = cls.from_pretrained("trained")
    np.testing.assert_array_equal(again.generate(row), model.generate(row))
