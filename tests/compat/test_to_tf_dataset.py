"""A Hugging Face dataset, batched by `to_tf_dataset` as in the Hugging Face course."""

import keras
import pytest

from finetune_tf.compat import (
    AutoTokenizer,
    DataCollatorWithPadding,
    TFAutoModelForSequenceClassification,
)
from finetune_tf.messages import quiet

datasets = pytest.importorskip("datasets")


@pytest.mark.filterwarnings("ignore:The output of `to_tf_dataset` will change:FutureWarning")
def test_to_tf_dataset_feeds_an_old_class(tiny_bert):
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    rows = datasets.Dataset.from_dict(
        {"text": ["good", "bad", "good good"] * 4, "label": [1, 0, 1] * 4}
    )
    rows = rows.map(lambda batch: tokenizer(batch["text"]), batched=True)
    batches = rows.to_tf_dataset(
        columns=["input_ids", "attention_mask", "token_type_ids"],
        label_cols=["label"],
        batch_size=4,
        shuffle=True,
        collate_fn=DataCollatorWithPadding(tokenizer, return_tensors="tf"),
    )
    with quiet():
        model = TFAutoModelForSequenceClassification.from_pretrained(tiny_bert, num_labels=2)
        model.compile(keras.optimizers.Adam(1e-4), metrics=["accuracy"])
        history = model.fit(batches, epochs=20, verbose=0).history
        prepared = model.prepare_tf_dataset(rows, batch_size=4, tokenizer=tokenizer)
        loss, _ = model.evaluate(prepared, verbose=0)
    assert history["loss"][-1] < history["loss"][0]
    assert loss < history["loss"][0]
