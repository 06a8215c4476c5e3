"""Named entities: words to sub-tokens, the rest of the labels -100.

Idioms: is_split_into_words, word_ids, DataCollatorForTokenClassification(return_tensors="tf")
"""

import numpy as np
import tensorflow as tf
from material import BAD, GOOD, SMALL, TEXTS

from finetune_tf.compat import (
    AutoTokenizer,
    DataCollatorForTokenClassification,
    TFAutoModelForTokenClassification,
)

tokenizer = AutoTokenizer.from_pretrained(SMALL)
rows = []
for text in TEXTS:
    words = text.split()
    encoding = tokenizer(words, is_split_into_words=True)
    tags = [1 if word in GOOD else 2 if word in BAD else 0 for word in words]
    encoding["labels"] = [-100 if i is None else tags[i] for i in encoding.word_ids()]
    rows.append(dict(encoding))
collator = DataCollatorForTokenClassification(tokenizer, return_tensors="tf")
batches = [collator(rows[i : i + 8]) for i in range(0, len(rows), 8)]
assert isinstance(batches[0]["labels"], tf.Tensor)

names = {0: "O", 1: "GOOD", 2: "BAD"}
model = TFAutoModelForTokenClassification.from_pretrained(
    SMALL, id2label=names, label2id={name: i for i, name in names.items()}
)
columns = {name: [row[name] for row in rows] for name in rows[0]}
train = model.prepare_tf_dataset(columns, batch_size=8, tokenizer=tokenizer)
model.compile(optimizer=tf.keras.optimizers.Adam(3e-3))
model.fit(train, epochs=5, verbose=0)

output = model(**batches[0])
assert output.loss.shape == (1,)
labels = batches[0]["labels"].numpy()
found = np.argmax(output.logits, axis=-1)
assert np.mean((found == labels)[labels != -100]) > 0.9
assert model.config.id2label[int(found[0, 1])] in names.values()
