"""The jobs done by KerasHub's BertTextClassifier on TensorFlow.

Settings: "default" pads to 512 tokens as its preprocessor does; "short" pads to the longest row of
the data; "compiled" adds jit_compile=True.
"""

import time

import common

job = common.job()

import keras  # noqa: E402
import keras_hub  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

if job.dtype == "bfloat16":
    keras.config.set_dtype_policy("mixed_bfloat16")
settings = set(job.setting.split("+"))


def load() -> keras.Model:
    """The model of the job, with random weights: none of MiniLM's are published for it."""
    size = common.SIZES[job.size]
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=size["vocab_size"],
        num_layers=size["num_hidden_layers"],
        num_heads=size["num_attention_heads"],
        hidden_dim=size["hidden_size"],
        intermediate_dim=size["intermediate_size"],
        max_sequence_length=size["max_position_embeddings"],
    )
    model = keras_hub.models.BertTextClassifier(backbone, num_classes=2, preprocessor=None)
    if job.frozen == "backbone":
        backbone.trainable = False
    if job.frozen == "half":
        for layer in backbone.layers:
            layer.trainable = layer.name.startswith("transformer_layer_") and layer.name[-1] > "2"
    optimizer = keras.optimizers.AdamW(2e-5, weight_decay=0.01, global_clipnorm=1.0)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile="compiled" in settings,
    )
    return model


def _inputs(ids: np.ndarray, mask: np.ndarray) -> dict:
    return {"token_ids": ids, "segment_ids": np.zeros_like(ids), "padding_mask": mask}


def _fixed(batches: int) -> tf.data.Dataset:
    rows = np.random.default_rng(0)
    ids = rows.integers(1000, 30000, (job.batch, job.length)).astype("int32")
    labels = rows.integers(0, 2, job.batch)
    return tf.data.Dataset.from_tensors((_inputs(ids, np.ones_like(ids)), labels)).repeat(batches)


def step() -> dict:
    """A training step at a fixed shape."""
    model, times = load(), []

    class Clock(keras.callbacks.Callback):
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


def _padded(given: list[str]) -> dict:
    from transformers import AutoTokenizer

    rows = AutoTokenizer.from_pretrained(job.checkpoint)(given)["input_ids"]
    length = max(map(len, rows)) if "short" in settings else 512
    ids = np.asarray([row + [0] * (length - len(row)) for row in rows], "int32")
    mask = np.asarray([[1] * len(row) + [0] * (length - len(row)) for row in rows], "int32")
    return _inputs(ids, mask)


def epochs() -> dict:
    """Whole epochs over real sentences, from tokens to weights; the model is made before."""
    given, labels = common.texts(job.data, "train", job.rows)
    model = load()
    start = time.perf_counter()
    model.fit(
        _padded(given), np.asarray(labels), batch_size=job.batch, epochs=job.epochs, verbose=0
    )
    return {"seconds": time.perf_counter() - start}


def predict() -> dict:
    """Logits for real sentences, the model used once before."""
    given, _ = common.texts(job.data, "train", job.rows)
    model = load()
    model.predict(_padded(given[:64]), batch_size=64, verbose=0)
    start = time.perf_counter()
    model.predict(_padded(given), batch_size=64, verbose=0)
    return {"seconds": time.perf_counter() - start}


common.tell(globals()[job.workload]())
