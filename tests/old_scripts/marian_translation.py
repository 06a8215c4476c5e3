"""Translation with Marian, as in the Hugging Face course.

Idioms: tokenizer(text_target=…), model.prepare_tf_dataset, model.generate in batches, batch_decode
"""

import numpy as np
import tensorflow as tf
from material_text import MARIAN, SOURCES, TARGETS

from finetune_tf.compat import (
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    TFAutoModelForSeq2SeqLM,
    create_optimizer,
)

tokenizer = AutoTokenizer.from_pretrained(MARIAN)
model = TFAutoModelForSeq2SeqLM.from_pretrained(MARIAN, from_pt=True)
assert type(model).__name__ == "TFMarianMTModel"
rows = tokenizer(SOURCES, text_target=TARGETS, max_length=24, truncation=True)
collator = DataCollatorForSeq2Seq(tokenizer, model=model, return_tensors="tf")
train = model.prepare_tf_dataset(rows, collate_fn=collator, shuffle=True, batch_size=8)
test = model.prepare_tf_dataset(rows, collate_fn=collator, shuffle=False, batch_size=16)


def share_of_right_translations():
    predictions, labels = [], []
    for batch, given in test:
        options = {"attention_mask": batch["attention_mask"], "max_new_tokens": 12}
        found = model.generate(input_ids=batch["input_ids"], **options)
        predictions += tokenizer.batch_decode(found, skip_special_tokens=True)
        given = np.where(given != -100, given, tokenizer.pad_token_id)
        labels += tokenizer.batch_decode(given, skip_special_tokens=True)
    assert labels == TARGETS
    return np.mean([a == b for a, b in zip(predictions, labels, strict=True)])


before = share_of_right_translations()
optimizer, schedule = create_optimizer(
    init_lr=2e-2, num_warmup_steps=0, num_train_steps=25 * len(train), weight_decay_rate=0.01
)
model.compile(optimizer=optimizer)
model.fit(train, validation_data=test, epochs=25, verbose=0)
after = share_of_right_translations()
assert before < 0.1 and after > 0.8, (before, after)
ids = model.generate(**tokenizer("the very good film", return_tensors="tf"), num_beams=4)
assert isinstance(ids, tf.Tensor) and ids[0, 0] == model.config.decoder_start_token_id
