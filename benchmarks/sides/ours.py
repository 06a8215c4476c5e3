"""The jobs done by finetune_tf."""

import time

import common

job = common.job()

import keras  # noqa: E402
import numpy as np  # noqa: E402

import finetune_tf as ft  # noqa: E402

FROZEN = {
    "none": ft.select.everything(),
    "backbone": ft.select.head(),
    "half": ~ft.select.bottom(3),
}


def load(**options: object) -> ft.FineTuneModel:
    """The model of the job."""
    dtype = "mixed_bfloat16" if job.dtype == "bfloat16" else "float32"
    folder = job.checkpoint or _random_folder()
    with ft.messages.quiet():
        return ft.load(folder, labels=["0", "1"], dtype=dtype, **options)


def _random_folder() -> str:
    import json
    import tempfile

    from safetensors.numpy import save_file

    folder = tempfile.mkdtemp()
    config = common.SIZES[job.size] | {"model_type": "bert", "architectures": ["BertModel"]}
    with open(f"{folder}/config.json", "w", encoding="utf-8") as file:
        json.dump(config, file)
    source = ft.checkpoints.FAMILIES["bert"]
    complete = source.complete(config)
    model = keras.Model((b := source.backbone(complete, None)).inputs, b.hidden)
    rows = {row.variable: row for row in source.weights(complete)}
    tensors = {}
    for variable in model.weights:
        row = rows.get(variable.path)
        if row is not None:
            array = variable.numpy()
            tensors[row.tensor] = np.ascontiguousarray(array.T if row.transposed else array)
    save_file(tensors, f"{folder}/model.safetensors")
    return folder


def step() -> dict:
    """A training step at a fixed shape."""
    model = load(pooling="pooler")
    times = []

    class Clock(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
            self.start = time.perf_counter()

        def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
            times.append(time.perf_counter() - self.start)

    model.compile(**ft.presets.cross_entropy(learning_rate=2e-5))
    model.fit(_fixed(common.WARM_UP + job.steps), verbose=0, callbacks=[Clock()])
    times = times[common.WARM_UP :]
    return {"seconds": float(np.median(times)), "all": times}


def _fixed(batches: int):
    import tensorflow as tf

    rows = np.random.default_rng(0)
    ids = rows.integers(1000, 30000, (job.batch, job.length)).astype("int32")
    inputs = {
        "input_ids": ids,
        "token_type_ids": np.zeros_like(ids),
        "attention_mask": np.ones_like(ids),
    }
    targets = rows.integers(0, 2, job.batch)
    return tf.data.Dataset.from_tensors((inputs, targets)).repeat(batches)


def epochs() -> dict:
    """Whole epochs over real sentences, from tokens to weights; the model is loaded before."""
    given, labels = common.texts(job.data, "train", job.rows)
    train = ft.data.from_arrays(given, [str(label) for label in labels])
    given, labels = common.texts(job.data, "test", None)
    test = ft.data.from_arrays(given, [str(label) for label in labels])
    model = load()
    start = time.perf_counter()
    with ft.messages.quiet():
        ft.train_only(model, FROZEN[job.frozen])
        learner = model if job.frozen == "none" else ft.cache_features(model)
        learner.compile(
            **ft.presets.cross_entropy(learning_rate=5e-5 if job.frozen == "none" else "auto")
        )
        batches = train.batches(learner, job.batch, shuffle=True)
        learner.fit(batches, epochs=job.epochs, verbose=0)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "accuracy": ft.evaluate(model, test).metrics["accuracy"]}


def predict() -> dict:
    """Labels for real sentences, the model loaded and used once before."""
    given, _ = common.texts(job.data, "train", job.rows)
    model = load()
    ft.predict(model, given[:64])
    start = time.perf_counter()
    ft.predict(model, given)
    return {"seconds": time.perf_counter() - start}


def first() -> dict:
    """From the start of the process to the end of the first step."""
    model = load(pooling="pooler")
    model.compile(**ft.presets.cross_entropy(learning_rate=2e-5))
    model.fit(_fixed(1), verbose=0)
    return {"seconds": common.since_start()}


common.tell(globals()[job.workload]())
