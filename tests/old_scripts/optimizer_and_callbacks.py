"""The optimizer and the callbacks of the course.

Idioms: create_optimizer, KerasMetricCallback, PushToHubCallback, AdamWeightDecay
"""

from pathlib import Path

import numpy as np
from material import LABELS, SMALL, TEXTS

from finetune_tf.compat import (
    AdamWeightDecay,
    AutoTokenizer,
    KerasMetricCallback,
    PushToHubCallback,
    TFAutoModelForSequenceClassification,
    create_optimizer,
)

tokenizer = AutoTokenizer.from_pretrained(SMALL)
model = TFAutoModelForSequenceClassification.from_pretrained(SMALL)
rows = {**tokenizer(TEXTS), "label": LABELS}
train = model.prepare_tf_dataset(rows, batch_size=8, shuffle=True, tokenizer=tokenizer)
steps = len(train) * 5
optimizer, schedule = create_optimizer(
    init_lr=5e-3, num_train_steps=steps, num_warmup_steps=5, weight_decay_rate=0.01
)
rates = [float(schedule(step)) for step in (0, 5, steps)]
np.testing.assert_allclose(rates, [0, 5e-3, 0], atol=1e-9)


def accuracy(predictions):
    logits, labels = predictions
    return {"measured": float(np.mean(np.argmax(logits, axis=1) == labels))}


model.compile(optimizer=optimizer)
history = model.fit(
    train,
    epochs=5,
    verbose=0,
    callbacks=[
        KerasMetricCallback(metric_fn=accuracy, eval_dataset=train),
        PushToHubCallback("my-model", tokenizer=tokenizer),
    ],
).history
assert history["measured"][-1] > 0.8, history
assert Path("my-model/model.safetensors").is_file()
assert Path("my-model/tokenizer.json").is_file()

model.compile(optimizer=AdamWeightDecay(learning_rate=2e-5, weight_decay_rate=0.01))
model.fit(train, epochs=1, verbose=0)
