"""The road from data to a saved model, which `main` takes on JAX where TensorFlow is missing.

A process of its own runs this file: python helpers_without_tensorflow.py TASK ARGUMENTS…
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

RANDOM = np.random.default_rng(3)
WORDS = ["a", "the", "film", "was", "very", "good", "bad", "fine", "dull", "story", "actor"]
TEXTS = [" ".join(RANDOM.choice(WORDS, n)) for n in RANDOM.integers(2, 12, 30)]
LABELS = ["good" if "good" in text else "fair" if "fine" in text else "bad" for text in TEXTS]


def road(checkpoint: Path, folder: Path) -> dict:
    """Trains, evaluates, predicts, caches features, saves and loads; returns numbers.

    Args:
        checkpoint: A classifier with the labels of `LABELS`.
        folder: For what is saved.
    """
    import keras

    import finetune_tf as ft

    (folder / "train.jsonl").write_text(
        "\n".join(
            json.dumps({"text": text, "label": label})
            for text, label in zip(TEXTS, LABELS, strict=True)
        )
    )
    train = ft.data.from_jsonl(folder / "train.jsonl")
    test = train.take(10)
    model = ft.load(checkpoint)
    model.compile(**ft.presets.cross_entropy(learning_rate=1e-4))
    options = {"buckets": 2, "batch_size": 8}
    batches = train.batches(model, shuffle=True, seed=4, balance=True, **options)
    watched = test.batches(model, **options)
    history = model.fit(batches, epochs=3, validation_data=watched, verbose=0).history
    found = {
        "fit": history["loss"],
        "validation": history["val_loss"],
        "place": batches.cursor.state_dict(),
        "evaluate": model.evaluate(watched, verbose=0),
        "predict": model.predict(watched, verbose=0).tolist(),
        "ft.predict": [each.score for each in ft.predict(model, TEXTS[:5])],
        "ft.evaluate": ft.evaluate(model, test).metrics,
        "reviews": ft.data.reviews("validation").columns["text"],
    }
    model.save(folder / "model.keras")
    same = keras.models.load_model(folder / "model.keras")
    found["a .keras file"] = same.predict(watched, verbose=0).tolist()
    same = ft.load(model.save_pretrained(folder / "saved"))
    found["a folder"] = same.predict(test.batches(same, **options), verbose=0).tolist()
    ft.train_only(same, ft.select.head())
    upper = ft.cache_features(same)
    upper.compile(**ft.presets.cross_entropy(learning_rate=1e-2))
    packed = same, train.batches(same, 8, shuffle=True, packing=20)
    for name, (each, data) in {
        "cached features": (upper, train.batches(upper, shuffle=True, **options)),
        "packed rows": packed,
    }.items():
        found[name] = each.fit(data, epochs=2, verbose=0).history["loss"]
    return found


def training(checkpoint: Path) -> None:
    """Trains, evaluates and predicts."""
    import finetune_tf as ft

    model = ft.load(checkpoint)
    train = ft.data.from_arrays(TEXTS, LABELS)
    batches = train.batches(model, 8, shuffle=True, buckets=1)
    model.fit(batches, validation_data=batches, verbose=0)
    model.predict(batches, verbose=0)
    ft.predict(model, TEXTS[:2])
    ft.evaluate(model, train)


def refusals(images: Path) -> list[str]:
    """The messages of what needs TensorFlow.

    Args:
        images: A checkpoint of an image model.
    """
    import finetune_tf as ft
    from finetune_tf.errors import MissingExtraError

    pictures = ft.data.from_arrays(image=np.zeros((4, 21, 21, 3), "uint8"), label=list("abab"))
    model = ft.load(images, labels=pictures.labels, new_head=True)
    messages = []
    for call in (
        lambda: pictures.batches(model, shuffle=True, augment="flip"),
        lambda: ft.data.from_tfds("glue/sst2"),
        lambda: ft.data.reviews("train[:10%]"),
        lambda: ft.callbacks.LogToTensorBoard("logs"),
    ):
        try:
            call()
        except MissingExtraError as error:
            messages.append(str(error))
    return messages


def orders() -> dict[str, list]:
    """The targets of the steps of Keras fits on batches, by the arguments of `fit`."""
    import keras

    from finetune_tf.data.batching import bucketed_dataset
    from finetune_tf.tasks.feature import Feature

    class Recorder(keras.Model):
        def train_step(self, state, data):
            _, targets = data
            self.seen.append(np.asarray(targets).tolist())
            return {"loss": keras.ops.mean(targets)}, state

    def batches():
        ids = [np.full(n, i) for i, n in enumerate([3, 5, 3, 9, 5, 3, 9, 9, 3, 5])]
        return bucketed_dataset(
            {"input_ids": Feature(ids)},
            Feature.of_array(np.arange(10)),
            2,
            {"tokens": [3, 5, 9]},
            shuffle=True,
            seed=7,
        )

    def fitted(data, **options):
        model = Recorder()
        model.seen, model.built = [], True
        model.compile(run_eagerly=True)
        model.fit(data, verbose=0, **options)
        return model.seen

    plain = batches()
    found = {"iterators": [[targets.tolist() for _, targets in plain] for _ in range(4)]}
    found["epochs=3"] = fitted(batches(), epochs=3, shuffle=False)
    found["shuffle=True"] = fitted(batches(), epochs=3, shuffle=True)
    found["steps_per_epoch=3"] = fitted(batches(), epochs=4, steps_per_epoch=3, shuffle=False)
    data = batches()
    found["two fits"] = fitted(data, steps_per_epoch=1) + fitted(data, epochs=2)
    data.cursor.epoch, data.cursor.batch = 1, 2
    found["from the middle"] = fitted(data, epochs=2, shuffle=False)
    return found


def after_errors(checkpoint: Path) -> dict[str, bool]:
    """Whether a model has the same weights after an error, by the method and its step."""
    import keras

    import finetune_tf as ft

    model = ft.load(checkpoint)
    model.compile(**ft.presets.cross_entropy(learning_rate=1e-4))
    data = ft.data.from_arrays(TEXTS, LABELS, labels=model.labels).batches(model, 8, buckets=1)
    model.fit(data, epochs=1, verbose=0)
    model.set_weights([weight + 0.5 for weight in model.get_weights()])

    class Fail(keras.callbacks.Callback):
        step = 0

        def on_train_batch_begin(self, batch, logs=None):
            if batch == self.step:
                raise RuntimeError("of a callback")

        on_test_batch_begin = on_predict_batch_begin = on_train_batch_begin

    def one_batch(batches, **_):
        inputs, targets = next(iter(batches))
        try:
            model.test_on_batch(inputs, targets[1:])
        except ft.errors.DataError as error:
            raise RuntimeError from error

    def is_kept(call: Callable, step: int) -> bool:
        Fail.step = step
        before = [np.array(weight) for weight in model.get_weights()]
        try:
            call(data, callbacks=[Fail()], verbose=0)
        except RuntimeError:
            pairs = zip(before, model.get_weights(), strict=True)
            kept = all(np.array_equal(*pair) for pair in pairs)
            return kept and bool(np.isfinite(model.evaluate(data, verbose=0)[0]))
        return False

    return {
        "evaluate, first step": is_kept(model.evaluate, 0),
        "evaluate, third step": is_kept(model.evaluate, 2),
        "predict, first step": is_kept(model.predict, 0),
        "predict, third step": is_kept(model.predict, 2),
        "fit, first step": is_kept(model.fit, 0),
        "test_on_batch": is_kept(one_batch, 0),
    }


class NoTensorFlow:
    """Makes Python believe that TensorFlow is not installed."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tensorflow", "tensorflow_datasets"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def on_jax(task: str, *arguments: object, output: Path, without: bool = True) -> object:
    """Runs a function of this module in a process with KERAS_BACKEND=jax; returns its result.

    Args:
        task: The name of the function.
        *arguments: Paths for it.
        output: The file for the result.
        without: Whether TensorFlow is missing in the process.
    """
    done = subprocess.run(
        [sys.executable, __file__, *map(str, (output, without, task, *arguments))],
        env={**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(output.read_text())


def main() -> None:
    output, without, task, *arguments = sys.argv[1:]
    if without == "True":
        sys.meta_path.insert(0, NoTensorFlow())
    found = globals()[task](*map(Path, arguments))
    imported = "tensorflow" in sys.modules
    Path(output).write_text(json.dumps({"result": found, "imported": imported}, default=float))


if __name__ == "__main__":
    main()
