"""T5 trained to summarize, with metrics of the summaries that it writes after each epoch.

Idioms: DataCollatorForSeq2Seq, KerasMetricCallback(predict_with_generate=True), labels of -100
"""

import numpy as np
import tensorflow as tf
from finetune_tf.compat.keras_callbacks import KerasMetricCallback
from material_text import SOURCES, T5

from finetune_tf.compat import (
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    TFAutoModelForSeq2SeqLM,
    create_optimizer,
)

tokenizer = AutoTokenizer.from_pretrained(T5)
model = TFAutoModelForSeq2SeqLM.from_pretrained(T5)
documents = [f"{source} was very long and short" for source in SOURCES]
rows = dict(tokenizer([f"summarize: {text}" for text in documents], truncation=True))
rows["labels"] = tokenizer(text_target=SOURCES, truncation=True)["input_ids"]

collator = DataCollatorForSeq2Seq(tokenizer=tokenizer, model=model, return_tensors="tf")
batch = collator([{name: rows[name][i] for name in rows} for i in range(3)])
assert batch["decoder_input_ids"][0, 0] == model.config.decoder_start_token_id
assert isinstance(batch["labels"], tf.Tensor) and model(batch).loss.shape == (1,)
train = model.prepare_tf_dataset(rows, shuffle=True, batch_size=8, collate_fn=collator)
test = model.prepare_tf_dataset(rows, shuffle=False, batch_size=8, collate_fn=collator)


def metric_fn(eval_predictions):
    predictions, labels = eval_predictions
    labels = np.where(labels != -100, labels, tokenizer.pad_token_id)
    found = tokenizer.batch_decode(predictions, skip_special_tokens=True)
    wanted = tokenizer.batch_decode(labels, skip_special_tokens=True)
    words = [(set(a.split()), set(b.split())) for a, b in zip(found, wanted, strict=True)]
    return {"shared_words": float(np.mean([len(a & b) / len(b) for a, b in words]))}


optimizer, _ = create_optimizer(3e-2, num_train_steps=12 * len(train))
model.compile(optimizer=optimizer)
callback = KerasMetricCallback(
    metric_fn, eval_dataset=test, predict_with_generate=True, generate_kwargs={"max_length": 10}
)
history = model.fit(train, epochs=12, callbacks=[callback], verbose=0).history
assert history["loss"][-1] < 0.3 * history["loss"][0], history
assert history["shared_words"][-1] > 0.8, history
