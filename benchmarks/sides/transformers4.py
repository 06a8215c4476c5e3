"""The jobs done by TFBertForSequenceClassification of transformers 4.57 with tf-keras."""

import os
import time

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import common

job = common.job()

import keras_jobs  # noqa: E402
import numpy as np  # noqa: E402
import tf_keras  # noqa: E402
from transformers import BertConfig, TFBertForSequenceClassification  # noqa: E402

IMPORTED = common.peak_mb()
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


def _inputs(ids: np.ndarray) -> dict:
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def step() -> dict:
    """A training step at a fixed shape."""
    return keras_jobs.step(job, load(), _inputs, tf_keras.callbacks.Callback)


def first() -> dict:
    """From the start of the process to the end of the first step."""
    return keras_jobs.first(job, load(), _inputs)


def epochs() -> dict:
    """Whole epochs over real sentences, padded to the longest one."""
    from transformers import AutoTokenizer

    given, labels = common.texts(job.data, "train", job.rows, job.corpus)
    model = load()
    start = time.perf_counter()
    rows = AutoTokenizer.from_pretrained(job.checkpoint)(given)["input_ids"]
    ids, mask = keras_jobs.padded(rows, max(map(len, rows)))
    inputs = {"input_ids": ids, "attention_mask": mask}
    model.fit(inputs, np.asarray(labels), batch_size=job.batch, epochs=job.epochs, verbose=0)
    return {"seconds": time.perf_counter() - start}


common.tell(globals()[job.workload](), IMPORTED)
