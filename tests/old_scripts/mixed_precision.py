"""Half precision for the matrix products.

Idioms: tf.keras.mixed_precision.set_global_policy, float32 logits
"""

import tensorflow as tf
from material import LABELS, SMALL, TEXTS

from finetune_tf.compat import AutoTokenizer, TFBertForSequenceClassification

tf.keras.mixed_precision.set_global_policy("mixed_bfloat16")
try:
    encoding = AutoTokenizer.from_pretrained(SMALL)(TEXTS, padding=True, return_tensors="tf")
    model = TFBertForSequenceClassification.from_pretrained(SMALL)
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=tf.keras.optimizers.Adam(3e-3), loss=loss)
    history = model.fit(encoding, tf.constant(LABELS), epochs=6, batch_size=8, verbose=0)
    assert history.history["loss"][-1] < 0.7 * history.history["loss"][0], history.history
    output = model(encoding, output_hidden_states=True)
    assert output.logits.dtype == "float32"
    assert output.hidden_states[1].dtype == "bfloat16"
finally:
    tf.keras.mixed_precision.set_global_policy("float32")
