"""A causal language model trained on chunks of block_size tokens, and its perplexity.

Idioms: TFAutoModelForCausalLM, group_texts, DataCollatorForLanguageModeling(mlm=False), exp(loss)
"""

import math

import tensorflow as tf
from material_text import GPT2, TEXTS

from finetune_tf.compat import (
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    TFAutoModelForCausalLM,
    create_optimizer,
)

tokenizer = AutoTokenizer.from_pretrained(GPT2)
model = TFAutoModelForCausalLM.from_pretrained(GPT2)
block_size = 16


def group_texts(examples):
    joined = {name: sum(rows, []) for name, rows in examples.items()}
    total = len(joined["input_ids"]) // block_size * block_size
    found = {
        name: [ids[i : i + block_size] for i in range(0, total, block_size)]
        for name, ids in joined.items()
    }
    found["labels"] = found["input_ids"].copy()
    return found


rows = group_texts({"input_ids": tokenizer(TEXTS)["input_ids"]})
collator = DataCollatorForLanguageModeling(tokenizer=tokenizer, mlm=False, return_tensors="tf")
train = model.prepare_tf_dataset(rows, shuffle=True, batch_size=4, collate_fn=collator)
test = model.prepare_tf_dataset(rows, shuffle=False, batch_size=4, collate_fn=collator)
optimizer, _ = create_optimizer(1e-2, num_train_steps=8 * len(train), weight_decay_rate=0.01)
model.compile(optimizer=optimizer)
before = math.exp(model.evaluate(test, verbose=0))
model.fit(train, validation_data=test, epochs=8, verbose=0)
after = math.exp(model.evaluate(test, verbose=0))
assert after < 0.2 * before, (before, after)
batch = collator([{"input_ids": ids} for ids in rows["input_ids"]])
loss = float(model(batch).loss[0])
assert math.isclose(math.log(after), loss, rel_tol=1e-4), (math.log(after), loss)
assert isinstance(batch["labels"], tf.Tensor)
