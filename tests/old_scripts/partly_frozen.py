"""The lower blocks stay as they are.

Idioms: for layer in model.bert.encoder.layer[:n], model.bert.embeddings.trainable, model.layers
"""

import numpy as np
from material import LABELS, SMALL, TEXTS

from finetune_tf.compat import AutoTokenizer, TFBertForSequenceClassification

encoding = AutoTokenizer.from_pretrained(SMALL)(TEXTS, padding=True, return_tensors="np")
model = TFBertForSequenceClassification.from_pretrained(SMALL)
everything = len(model.trainable_weights)

model.bert.embeddings.trainable = False
for layer in model.bert.encoder.layer[:1]:
    layer.trainable = False
assert len(model.trainable_weights) == everything - 5 - 16

model.compile("adam")
lower, upper = (np.array(block.attention.key.kernel) for block in model.bert.encoder.layer)
model.fit(dict(encoding), np.array(LABELS), verbose=0)
assert np.array_equal(lower, model.bert.encoder.layer[0].attention.key.kernel)
assert not np.array_equal(upper, model.bert.encoder.layer[1].attention.key.kernel)

for layer in model.layers[:-1]:
    layer.trainable = False
assert len(model.trainable_weights) == 2
