"""What fine-tuning a MobileNetV2 on images reaches, here and in PyTorch, and what it costs.

    python benchmarks/images_accuracy.py --data ../shared/data --weights ../shared/weights
        [--sets sign_digits cifar10] [--policies frozen uncached upper whole]
        [--sides ours pytorch] [--seeds 0 1 2] [--threads 1] [--output images_accuracy.jsonl]

Both sides start from the same folder with the same new head, see the same prepared images of 96 x
96 pixels in the same order, and have the same optimizer, schedule and dropout rate; the statistics
of batch normalization are those of the checkpoint. Only the random numbers of dropout differ, so
the spread over seeds is what to compare with.

The policies: "frozen" trains the head on cached features and "uncached" trains it without the
cache; "upper" freezes `ft.select.embeddings() | ft.select.bottom(2)`, with cached features; "whole"
trains all. PyTorch has no cache, so its frozen part runs in each epoch. The rate and the
dropout rate of the head were chosen on a fifth of the training images of sign_digits.

A run is a process of its own. Its seconds begin after loading and end after the last epoch, with
everything that happens in between, such as tracing and the computation of cached features;
decoding of files is in neither side's time. "processor" counts the seconds of all threads, which
other programs on the machine disturb less than those of the clock. A run is a line of JSON in
--output; runs that are there are not repeated, so that the measurement can be done in parts.
"""

import argparse
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from sides.common import Clock, peak_mb

SIZE, BATCH, DROPOUT = 96, 32, 0.2
CHECKPOINT = "mobilenet_v2_100"
SETS = ("sign_digits", "cifar10")
# The highest learning rate of each policy, and its epochs on each set.
RATES = {"frozen": 5e-3, "uncached": 5e-3, "upper": 1e-3, "whole": 1e-3}
EPOCHS = {
    "sign_digits": {"frozen": 20, "uncached": 20, "upper": 10, "whole": 10},
    "cifar10": {"frozen": 5, "uncached": 5, "upper": 3, "whole": 3},
}


def prepare(name: str, seed: int, data: Path, weights: Path, folder: Path) -> None:
    """Writes what both sides share: prepared images, the checkpoint with a new head, the orders."""
    import keras

    import finetune_tf as ft

    if name == "sign_digits":
        train, test = (ft.data.from_image_folder(data / name / s) for s in ("train", "test"))
        labels = list(train.labels)
    else:
        with np.load(data / name / "cifar10_subset.npz") as file:
            arrays = dict(file)
        labels = [f"class {i}" for i in range(10)]
        train, test = (
            ft.data.from_arrays(
                image=list(arrays[f"x_{split}"]), label=[labels[i] for i in arrays[f"y_{split}"]]
            )
            for split in ("train", "test")
        )
    keras.utils.set_random_seed(seed)
    with ft.messages.quiet():
        options = {"new_head": True, "image_size": SIZE, "dropout": DROPOUT}
        model = ft.load(weights / CHECKPOINT, labels=labels, **options)
        model.save_pretrained(folder / "checkpoint")
    arrays = {}
    for split, examples in (("train", train), ("test", test)):
        images = examples.columns["image"]
        arrays[f"x_{split}"] = np.stack([model.image_processor(image) for image in images])
        arrays[f"y_{split}"] = np.array(
            [labels.index(label) for label in examples.columns["label"]]
        )
    np.savez(folder / "images.npz", labels=labels, **arrays)
    batches = _examples(arrays, labels, "train").batches(model, BATCH, shuffle=True, seed=seed)
    pairs = zip(arrays["x_train"], arrays["y_train"], strict=True)
    rows = {(image.tobytes(), int(label)): row for row, (image, label) in enumerate(pairs)}
    epochs = max(EPOCHS[name].values())
    orders = np.full((epochs, batches.cardinality().numpy(), BATCH), -1)
    for epoch in range(epochs):
        for step, (inputs, targets) in enumerate(batches.as_numpy_iterator()):
            keys = zip(inputs["pixel_values"], targets, strict=True)
            chosen = [rows[image.tobytes(), int(label)] for image, label in keys]
            orders[epoch, step, : len(chosen)] = chosen  # one of the batches is smaller
    np.save(folder / "orders.npy", orders)


def _examples(arrays: dict, labels: list[str], split: str) -> "object":
    import finetune_tf as ft

    images, numbers = arrays[f"x_{split}"], arrays[f"y_{split}"]
    names = [labels[number] for number in numbers]
    return ft.data.from_arrays(image=list(images), label=names, labels=labels, name=split)


def ours(policy: str, seed: int, epochs: int, folder: Path, arrays: dict, threads: int) -> dict:
    """Fine-tunes with finetune_tf."""
    import keras
    import tensorflow as tf

    import finetune_tf as ft

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    keras.utils.set_random_seed(seed)
    labels = [str(label) for label in arrays["labels"]]
    train, test = (_examples(arrays, labels, split) for split in ("train", "test"))
    imported = peak_mb()
    model = ft.load(folder / "checkpoint")
    if policy in ("frozen", "uncached"):
        ft.train_only(model, ft.select.head())
    elif policy == "upper":
        ft.freeze(model, ft.select.embeddings() | ft.select.bottom(2))
    trainable = sum(math.prod(variable.shape) for variable in model.trainable_variables)
    train.batches(model, BATCH).as_numpy_iterator().next()  # the images are prepared

    clock = Clock()
    learner = ft.cache_features(model) if policy in ("frozen", "upper") else model
    learner.compile(**ft.presets.cross_entropy(learning_rate=RATES[policy]))
    batches = train.batches(learner, BATCH, shuffle=True, seed=seed)
    at_end = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: clock.mark())
    learner.fit(batches, epochs=epochs, verbose=0, callbacks=[at_end])
    memory = peak_mb()
    accuracy = ft.evaluate(model, test).metrics["accuracy"]
    return {"accuracy": accuracy, "trainable": trainable, "peak_mb": memory} | {
        "imported_mb": imported,
        **clock.result(),
    }


def pytorch(policy: str, seed: int, epochs: int, folder: Path, arrays: dict, threads: int) -> dict:
    """Fine-tunes with transformers on PyTorch."""
    from sides.mobilenet_pytorch import fine_tune

    orders = np.load(folder / "orders.npy")[:epochs]
    return fine_tune(policy, RATES[policy], seed, orders, folder / "checkpoint", arrays, threads)


SIDES = {"ours": ours, "pytorch": pytorch}


def run(name: str, seed: int, policy: str, side: str, folder: Path, threads: int) -> dict:
    """Runs one side in a process of its own and returns what it prints."""
    command = [sys.executable, __file__, "--job", str(folder), "--sets", name, "--sides", side]
    command += ["--policies", policy, "--seeds", str(seed), "--threads", str(threads)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr[-3000:]}")
    row = {"set": name, "policy": policy, "side": side, "seed": seed, "threads": threads}
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return row | {key: round(value, 4) for key, value in found.items()}


def table(rows: list[dict]) -> str:
    """The means over seeds as a table, with the lowest and the highest accuracy."""
    lines = [
        "| images | policy | side | accuracy (lowest to highest) | trainable | seconds | "
        "processor seconds | first epoch | later epochs | peak memory |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault((row["set"], row["policy"], row["side"]), []).append(row)
    for (name, policy, side), runs in sorted(groups.items()):
        mean = {
            key: statistics.mean(run[key] for run in runs)
            for key, value in runs[0].items()
            if not isinstance(value, str)
        }
        scores = [run["accuracy"] for run in runs]
        lines.append(
            f"| {name} | {policy} | {side} ({len(runs)}) | {mean['accuracy']:.3f} "
            f"({min(scores):.3f} to {max(scores):.3f}) | {runs[0]['trainable']:,} | "
            f"{mean['seconds']:.1f} | {mean['processor']:.1f} | {mean['first_epoch']:.2f} | "
            f"{mean['later_epochs']:.3f} | {mean['peak_mb']:,.0f} MB, "
            f"{mean['peak_mb'] - mean['imported_mb']:,.0f} without imports |"
        )
    return "\n".join(lines)


def main() -> None:
    """Runs what is missing in the output, and prints the table of all that is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with sign_digits/ and cifar10/")
    parser.add_argument("--weights", type=Path, help=f"folder with {CHECKPOINT}/")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--policies", nargs="+", choices=RATES, default=list(RATES))
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1, help="of each side")
    parser.add_argument("--output", type=Path, default=Path("images_accuracy.jsonl"))
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.job:
        (name,), (policy,), (side,), (seed,) = given.sets, given.policies, given.sides, given.seeds
        with np.load(given.job / "images.npz") as file:
            arrays = dict(file)
        epochs = EPOCHS[name][policy]
        print(json.dumps(SIDES[side](policy, seed, epochs, given.job, arrays, given.threads)))
        return
    keys = ("set", "policy", "side", "seed", "threads")
    lines = given.output.read_text("utf-8").splitlines() if given.output.exists() else []
    rows = [json.loads(line) for line in lines]
    done = {tuple(row[key] for key in keys) for row in rows}
    for name, seed in itertools.product(given.sets, given.seeds):
        wanted = [
            (policy, side)
            for policy, side in itertools.product(given.policies, given.sides)
            if (name, policy, side, seed, given.threads) not in done
            # PyTorch has no cache, so its frozen and uncached runs are the same.
            and (policy, side) != ("uncached", "pytorch")
        ]
        with tempfile.TemporaryDirectory() as folder:
            if wanted:
                prepare(name, seed, given.data, given.weights, Path(folder))
            for policy, side in wanted:
                rows.append(run(name, seed, policy, side, Path(folder), given.threads))
                print(json.dumps(rows[-1]), flush=True)
                with given.output.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
