"""Models from configs, and configs of models.

Idioms: BertConfig, TFBertModel(config), from_config, config= with labels, save_pretrained
"""

import numpy as np
from material import SMALL

from finetune_tf.compat import (
    AutoConfig,
    BertConfig,
    TFAutoModel,
    TFBertForSequenceClassification,
    TFBertModel,
)

config = BertConfig(
    vocab_size=40,
    hidden_size=24,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=32,
    output_hidden_states=True,
)
ids = np.array([[2, 7, 8, 3]])
model = TFBertModel(config)
assert len(model(ids).hidden_states) == 3
assert model.config.hidden_size == 24
assert TFAutoModel.from_config(config)(ids)[0].shape == (1, 4, 24)

config = AutoConfig.from_pretrained(SMALL, num_labels=3, id2label={0: "a", 1: "b", 2: "c"})
classifier = TFBertForSequenceClassification.from_pretrained(SMALL, config=config)
assert classifier(ids).logits.shape == (1, 3)
assert classifier.config.id2label[2] == "c"
assert classifier.config.num_labels == classifier.num_labels == 3
assert classifier.num_parameters() > 10_000

classifier.save_pretrained("labelled")
assert AutoConfig.from_pretrained("labelled").id2label == {0: "a", 1: "b", 2: "c"}
again = TFBertForSequenceClassification.from_pretrained("labelled", from_pt=True)
np.testing.assert_array_equal(again(ids).logits, classifier(ids).logits)
