"""A masked-language model trained on texts, other words hidden in each epoch.

Idioms: prepare_tf_dataset(collate_fn=DataCollatorForLanguageModeling), labels that copy the ids
"""

import math

from material import SMALL, TEXTS

from finetune_tf.compat import (
    AdamWeightDecay,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    TFAutoModelForMaskedLM,
)

tokenizer = AutoTokenizer.from_pretrained(SMALL)
model = TFAutoModelForMaskedLM.from_pretrained(SMALL)
rows = tokenizer(TEXTS, truncation=True, max_length=32)
rows["labels"] = rows["input_ids"].copy()
collator = DataCollatorForLanguageModeling(
    tokenizer=tokenizer, mlm_probability=0.2, return_tensors="tf"
)
train = model.prepare_tf_dataset(rows, collate_fn=collator, shuffle=True, batch_size=8)
test = model.prepare_tf_dataset(rows, collate_fn=collator, shuffle=False, batch_size=8)
first, second = (next(iter(train))[0]["input_ids"] for _ in range(2))
assert first.shape != second.shape or (first != second).numpy().any()

model.compile(optimizer=AdamWeightDecay(5e-3, weight_decay_rate=0.01))
before = math.exp(model.evaluate(test, verbose=0))
model.fit(train, epochs=10, verbose=0)
after = math.exp(model.evaluate(test, verbose=0))
assert after < 0.3 * before, (before, after)
