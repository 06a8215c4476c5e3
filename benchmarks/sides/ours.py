"""The jobs done by finetune_tf.

Settings: "packed" and "packed128" pack texts into rows, "compiled" compiles the step with XLA,
"checkpointing" saves memory, "openvino" predicts with an exported model. KERAS_BACKEND selects the
engine.
"""

import json
import tempfile
import time

import common

job = common.job()

import keras  # noqa: E402
import keras_jobs  # noqa: E402
import numpy as np  # noqa: E402

import finetune_tf as ft  # noqa: E402
from finetune_tf.families import FAMILIES  # noqa: E402
from finetune_tf.weights.writing import WeightWriter  # noqa: E402

settings = set(job.setting.split("+"))
IMPORTED = common.peak_mb()
FROZEN = {
    "none": ft.select.everything(),
    "backbone": ft.select.head(),
    "half": ~(ft.select.embeddings() | ft.select.bottom(3)),
}


def load(**options: object) -> ft.FineTuneModel:
    """The model of the job."""
    dtype = "mixed_bfloat16" if job.dtype == "bfloat16" else "float32"
    sparing = "checkpointing" in settings
    with ft.messages.quiet():
        return ft.load(
            job.checkpoint,
            labels=["0", "1"],
            dtype=dtype,
            gradient_checkpointing=sparing,
            **options,
        )


def checkpoint() -> dict:
    """A checkpoint of the job's size: the family's own backbone with fresh weights."""
    config = common.SIZES[job.size] | {"model_type": "bert", "architectures": ["BertModel"]}
    (job.checkpoint / "config.json").write_text(json.dumps(config), encoding="utf-8")
    family = FAMILIES["bert"]
    config = family.complete(config)
    backbone = family.backbone(config, None)
    model = keras.Model(backbone.inputs, backbone.hidden)
    writer = WeightWriter("float32", 10**12)
    writer.write(job.checkpoint, model.weights, family.weights(config))
    return {}


def _inputs(ids: np.ndarray) -> dict:
    return {
        "input_ids": ids,
        "token_type_ids": np.zeros_like(ids),
        "attention_mask": np.ones_like(ids),
    }


XLA = {"jit_compile": True} if "compiled" in settings else {}


def _compiled() -> ft.FineTuneModel:
    model = load(pooling="pooler")
    model.compile(**ft.presets.cross_entropy(learning_rate=2e-5), **XLA)
    return model


def step() -> dict:
    """A training step at a fixed shape."""
    return keras_jobs.step(job, _compiled(), _inputs, keras.callbacks.Callback)


class EpochClock(keras.callbacks.Callback):
    """Notes the seconds of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Starts the clock."""
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Stops the clock."""
        self.seconds.append(time.perf_counter() - self.start)


def epochs() -> dict:
    """Whole epochs over real sentences, from tokens to weights; the model is loaded before."""
    given, labels = common.texts(job.data, "train", job.rows, job.corpus)
    train = ft.data.from_arrays(given, [str(label) for label in labels])
    given, labels = common.texts(job.data, "test", None)
    test = ft.data.from_arrays(given, [str(label) for label in labels])
    model = load()
    model.tokenizer  # noqa: B018 - loaded before the clock starts, as the other sides do
    start = time.perf_counter()
    with ft.messages.quiet():
        ft.train_only(model, FROZEN[job.frozen])
        learner = model if job.frozen == "none" else ft.cache_features(model)
        learner.compile(**XLA)  # the same rates as those of the other sides
        packing = 128 if "packed128" in settings else "packed" in settings
        batches = train.batches(learner, job.batch, shuffle=True, packing=packing)
        clock = EpochClock()
        learner.fit(batches, epochs=job.epochs, verbose=0, callbacks=[clock])
    seconds = time.perf_counter() - start
    accuracy = ft.evaluate(model, test).metrics["accuracy"]
    return {"seconds": seconds, "epochs": clock.seconds, "accuracy": accuracy}


def predict() -> dict:
    """Labels for real sentences, the model loaded and used once before.

    With the setting "openvino" an exported engine does it, batched as the model would be.
    """
    given, _ = common.texts(job.data, "train", job.rows, job.corpus)
    model = load()
    if "openvino" in settings:
        return _served(model, given)
    ft.predict(model, given[:64])
    start = time.perf_counter()
    ft.predict(model, given)
    return {"seconds": time.perf_counter() - start}


def _served(model: ft.FineTuneModel, given: list[str]) -> dict:
    import openvino

    with ft.messages.quiet(), tempfile.TemporaryDirectory() as folder:
        path = model.export(folder, format="openvino") / "openvino_model.xml"
        engine = openvino.Core().compile_model(path, "CPU", {"PERFORMANCE_HINT": "LATENCY"})

    def labels(texts: list[str]) -> list[int]:
        rows = model.tokenizer(texts)["input_ids"]
        found, order = [0] * len(rows), sorted(range(len(rows)), key=lambda i: len(rows[i]))
        for chosen in (order[i : i + 64] for i in range(0, len(order), 64)):
            length = len(rows[chosen[-1]])
            ids, mask = keras_jobs.padded([rows[i] for i in chosen], length)
            inputs = _inputs(ids) | {"attention_mask": mask}
            for i, label in zip(chosen, engine(inputs)["logits"].argmax(-1), strict=True):
                found[i] = int(label)
        return found

    labels(given[:64])
    start = time.perf_counter()
    labels(given)
    return {"seconds": time.perf_counter() - start}


def first() -> dict:
    """From the start of the process to the end of the first step."""
    return keras_jobs.first(job, _compiled(), _inputs)


common.tell(globals()[job.workload](), IMPORTED)
