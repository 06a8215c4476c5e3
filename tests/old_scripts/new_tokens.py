"""Words added to the vocabulary.

Idioms: tokenizer.add_tokens, resize_token_embeddings(len(tokenizer)), get_input_embeddings
"""

import numpy as np
from material import LABELS, SMALL, TEXTS

from finetune_tf.compat import AutoTokenizer, TFBertForSequenceClassification

tokenizer = AutoTokenizer.from_pretrained(SMALL)
model = TFBertForSequenceClassification.from_pretrained(SMALL)
before = model(**tokenizer(TEXTS[:2], padding=True, return_tensors="tf")).logits
assert tokenizer.add_tokens(["marvellous", "dreadful"]) == 2
model.resize_token_embeddings(len(tokenizer))
assert model.get_input_embeddings().embeddings.shape[0] == len(tokenizer)
np.testing.assert_array_equal(
    model(**tokenizer(TEXTS[:2], padding=True, return_tensors="tf")).logits, before
)

words = {"good": "marvellous", "bad": "dreadful"}
texts = [" ".join(words.get(word, word) for word in text.split()) for text in TEXTS]
encoding = tokenizer(texts, padding=True, return_tensors="tf")
assert np.max(encoding["input_ids"]) == len(tokenizer) - 1
model.compile("adam")
model.fit(encoding, np.array(LABELS), verbose=0)

model.save_pretrained("larger")
tokenizer.save_pretrained("larger")
again = TFBertForSequenceClassification.from_pretrained("larger")
np.testing.assert_array_equal(again(**encoding).logits, model(**encoding).logits)
