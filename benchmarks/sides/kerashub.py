"""The jobs done by KerasHub's BertTextClassifier on TensorFlow.

Settings: "default" pads to 512 tokens as its preprocessor does; "short" pads to the longest row of
the data; "compiled" adds jit_compile=True.
"""

import time

import common

job = common.job()

import keras  # noqa: E402
import keras_hub  # noqa: E402
import keras_jobs  # noqa: E402
import numpy as np  # noqa: E402

if job.dtype == "bfloat16":
    keras.config.set_dtype_policy("mixed_bfloat16")
settings = set(job.setting.split("+"))
IMPORTED = common.peak_mb()


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


def _inputs(ids: np.ndarray, mask: np.ndarray | None = None) -> dict:
    mask = np.ones_like(ids) if mask is None else mask
    return {"token_ids": ids, "segment_ids": np.zeros_like(ids), "padding_mask": mask}


def step() -> dict:
    """A training step at a fixed shape."""
    return keras_jobs.step(job, load(), _inputs, keras.callbacks.Callback)


def first() -> dict:
    """From the start of the process to the end of the first step."""
    return keras_jobs.first(job, load(), _inputs)


def _padded(given: list[str]) -> dict:
    from transformers import AutoTokenizer

    rows = AutoTokenizer.from_pretrained(job.checkpoint)(given)["input_ids"]
    length = max(map(len, rows)) if "short" in settings else 512
    return _inputs(*keras_jobs.padded(rows, length))


def epochs() -> dict:
    """Whole epochs over real sentences, from tokens to weights; the model is made before."""
    given, labels = common.texts(job.data, "train", job.rows, job.corpus)
    model = load()
    start = time.perf_counter()
    model.fit(
        _padded(given), np.asarray(labels), batch_size=job.batch, epochs=job.epochs, verbose=0
    )
    return {"seconds": time.perf_counter() - start}


def predict() -> dict:
    """Logits for real sentences, the model used once before."""
    given, _ = common.texts(job.data, "train", job.rows, job.corpus)
    model = load()
    model.predict(_padded(given[:64]), batch_size=64, verbose=0)
    start = time.perf_counter()
    model.predict(_padded(given), batch_size=64, verbose=0)
    return {"seconds": time.perf_counter() - start}


common.tell(globals()[job.workload](), IMPORTED)
