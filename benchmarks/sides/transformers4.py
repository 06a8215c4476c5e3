"""The jobs done by TFBertForSequenceClassification of transformers 4.57 with tf-keras."""

import os
import time

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import common

job = common.job()

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
import tf_keras  # noqa: E402
from transformers import BertConfig, TFBertForSequenceClassification  # noqa: E402

if job.dtype == "bfloat16":
    tf_keras.mixed_precision.set_global_policy("mixed_bfloat16")


def load() -> tf_keras.Model:
    """The model of the job, with random weights: it reads no safetensors without PyTorch."""
    model = TFBertForSequenceClassification(BertConfig(**common.SIZES[job.size]))
    model.build_in_name_scope()
    if job.frozen == "backbone":
        model.bert.trainable = False
    optimizer = tf_keras.optimizers.AdamW(2e-5, weight_decay=0.01, global_clipnorm=1.0)
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss)
    return model


def _fixed(batches: int) -> tf.data.Dataset:
    rows = np.random.default_rng(0)
    ids = rows.integers(1000, 30000, (job.batch, job.length)).astype("int32")
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    return tf.data.Dataset.from_tensors((inputs, rows.integers(0, 2, job.batch))).repeat(batches)


def step() -> dict:
    """A training step at a fixed shape."""
    model, times = load(), []

    class Clock(tf_keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
            self.start = time.perf_counter()

        def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
            times.append(time.perf_counter() - self.start)

    model.fit(_fixed(common.WARM_UP + job.steps), verbose=0, callbacks=[Clock()])
    times = times[common.WARM_UP :]
    return {"seconds": float(np.median(times)), "all": times}


def first() -> dict:
    """From the start of the process to the end of the first step."""
    load().fit(_fixed(1), verbose=0)
    return {"seconds": common.since_start()}


def epochs() -> dict:
    """Whole epochs over real sentences, padded to the longest one."""
    from transformers import AutoTokenizer

    given, labels = common.texts(job.data, "train", job.rows)
    model = load()
    start = time.perf_counter()
    encoded = AutoTokenizer.from_pretrained(job.checkpoint)(given, padding=True)
    inputs = {name: np.asarray(encoded[name]) for name in ("input_ids", "attention_mask")}
    model.fit(inputs, np.asarray(labels), batch_size=job.batch, epochs=job.epochs, verbose=0)
    return {"seconds": time.perf_counter() - start}


common.tell(globals()[job.workload]())
