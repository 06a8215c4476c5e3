"""What the attention looks at.

Idioms: output_attentions=True in the call and in from_pretrained, return_dict=False
"""

import numpy as np
from material import SMALL

from finetune_tf.compat import AutoTokenizer, TFBertForSequenceClassification, TFBertModel

encoding = AutoTokenizer.from_pretrained(SMALL)(
    ["the film was good", "bad"], padding=True, return_tensors="tf"
)
model = TFBertModel.from_pretrained(SMALL, output_attentions=True)
attentions = model(**encoding).attentions
assert len(attentions) == 2
assert attentions[0].shape == (2, 3, 6, 6)
np.testing.assert_allclose(np.sum(attentions[0], axis=-1), 1.0, rtol=1e-5)
assert np.max(np.asarray(attentions[0])[1, :, :, 3:]) < 1e-9  # padding

classifier = TFBertForSequenceClassification.from_pretrained(SMALL)
assert classifier(encoding).attentions is None
logits, states, attentions = classifier(
    encoding, output_hidden_states=True, output_attentions=True, return_dict=False
)
assert logits.shape == (2, 2)
assert len(states) == 3
assert len(attentions) == 2
