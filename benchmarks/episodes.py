"""Measures learners in episodes on classes that no training has seen.

Two data sets: hand-written characters (Omniglot) with a small convolutional network that is trained
from scratch, and intents (CLINC150) on the vectors of a frozen MiniLM, above which one residual
layer is trained. Each learner is reported beside a logistic regression on the features of the same
model before it adapts, in the same episodes. Prints JSON lines; times are processor seconds.

    python benchmarks/episodes.py --data shared/data
    python benchmarks/episodes.py --data shared/data --only omniglot --limit 20

The data folder has omniglot/omniglot_small.npz (x_train, y_train, x_test, y_test with other
characters in the test) and clinc150/train.csv and test.csv (text, label).
"""

import argparse
import json
import time
from pathlib import Path

import keras
import numpy as np

import finetune_tf as ft
from finetune_tf.demo import minilm

QUERIES = 10
WIDTH = 384  # of the vectors of MiniLM


def main():
    """Runs what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", choices=["omniglot", "clinc150"])
    parser.add_argument("--learner", help="the only learner to run, such as MAML")
    parser.add_argument(
        "--limit", type=int, help="episodes of each fit and evaluation, for a trial"
    )
    options = parser.parse_args()
    if options.only != "clinc150":
        omniglot(options)
    if options.only != "omniglot":
        clinc150(options)


def report(options, data, name, learner, train, test, ways, shots, fit, episodes):
    """Fits a learner, if `fit` has options, evaluates it, and prints both."""
    keras.utils.set_random_seed(0)
    if options.learner and not name.startswith(options.learner):
        return
    limit = options.limit or 10**6
    start = time.process_time()
    learner = learner()
    if fit:
        learner.fit(train, **{**fit, "episodes": min(fit["episodes"], limit)})
    seconds = time.process_time() - start
    for number in shots:
        start = time.process_time()
        measured = learner.evaluate(
            test, ways, number, QUERIES, episodes=min(episodes, limit), seed=1
        )
        line = {
            "data": data,
            "learner": name,
            "ways": ways,
            "shots": number,
            "accuracy": interval(measured.accuracy),
            "probe": interval(measured.probe),
            "difference": interval(measured.difference),
            "episodes": len(measured.accuracies),
            "fit_seconds": round(seconds, 1),
            "evaluation_seconds": round(time.process_time() - start, 1),
        }
        print(json.dumps(line), flush=True)


def interval(mean):
    """The mean and the ends of its interval."""
    return [round(number, 3) for number in (mean.value, mean.low, mean.high)]


# Omniglot


def omniglot(options):
    """Measures all learners on characters."""
    with np.load(options.data / "omniglot" / "omniglot_small.npz") as file:
        train, test = [
            (1 - file[f"x_{part}"][..., None].astype("float32") / 255, file[f"y_{part}"])
            for part in ("train", "test")
        ]
    train = with_rotations(*train)
    pixels = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten(), Scale()])
    learners = {
        "Prototypes": (
            lambda: ft.meta.Prototypes(convolutions()),
            {"ways": 20, "shots": 1, "queries": 5, "episodes": 600},
        ),
        "MAML": (
            lambda: ft.meta.MAML(convolutions(), inner_rate=0.2, steps=3, learning_rate=3e-3),
            {"ways": 5, "shots": 1, "queries": QUERIES, "episodes": 1200},
        ),
        "MAML, statistics of the batch": (
            lambda: ft.meta.MAML(
                convolutions(), inner_rate=0.2, steps=3, learning_rate=3e-3, statistics="batch"
            ),
            {"ways": 5, "shots": 1, "queries": QUERIES, "episodes": 1200},
        ),
        "Reptile": (
            lambda: ft.meta.Reptile(convolutions(), inner_rate=3e-3, steps=8, adapt_steps=30),
            {"ways": 5, "shots": 10, "episodes": 1500},
        ),
        "MAML, first order": (
            lambda: ft.meta.MAML(
                convolutions(), inner_rate=0.2, steps=3, learning_rate=3e-3, first_order=True
            ),
            {"ways": 5, "shots": 1, "queries": QUERIES, "episodes": 1600},
        ),
        "MAML, prototypes": (
            lambda: ft.meta.MAML(
                convolutions(), inner_rate=0.05, steps=3, learning_rate=3e-3, head="prototypes"
            ),
            {"ways": 5, "shots": 1, "queries": QUERIES, "episodes": 1200},
        ),
        "pixels": (lambda: ft.meta.Prototypes(pixels), None),
    }
    for name, (learner, fit) in learners.items():
        report(options, "omniglot", name, learner, train, test, 5, (1, 5), fit, 150)


class Scale(keras.layers.Layer):
    """Multiplies by a weight, since stages need one."""

    def build(self, input_shape):
        """Creates the weight."""
        self.scale = self.add_weight(shape=(), initializer="ones")

    def call(self, x):
        """Multiplies."""
        return x * self.scale


def convolutions():
    """Four strided convolutions, 192 features."""
    inputs = hidden = keras.Input((28, 28, 1))
    for _ in range(4):
        hidden = keras.layers.Conv2D(48, 3, strides=2, padding="same", use_bias=False)(hidden)
        hidden = keras.layers.BatchNormalization(momentum=0.9)(hidden)
        hidden = keras.layers.ReLU()(hidden)
    return keras.Model(inputs, keras.layers.Flatten()(hidden), name="convolutions")


def with_rotations(images, classes):
    """Each rotation by 90 degrees is a class of its own (Vinyals et al. 2016)."""
    turned = [np.rot90(images, turns, axes=(1, 2)) for turns in range(4)]
    numbers = [classes.astype(int) + turns * 1000 for turns in range(4)]
    return np.concatenate(turned), np.concatenate(numbers)


# CLINC150


def clinc150(options):
    """Measures all learners on intents."""
    train_classes, test_classes = intents(options)
    for ways, episodes in ((5, 150), (50, 30)):
        trained_ways = min(ways, 20)
        learners = {
            "Prototypes, no fit": (lambda: ft.meta.Prototypes(residual(), keep_head=True), None),
            "Prototypes": (
                lambda: ft.meta.Prototypes(residual(), learning_rate=1e-4, keep_head=True),
                {"ways": 50, "shots": 1, "queries": 5, "episodes": 600},
            ),
            "MAML": (
                # The gradient of the mean loss falls with the number of classes.
                lambda ways=ways: ft.meta.MAML(
                    residual(), inner_rate=0.1 * ways, learning_rate=1e-3, keep_head=True
                ),
                {"ways": ways, "shots": 1, "queries": 5, "episodes": 1000},
            ),
            "MAML, prototypes": (
                lambda: ft.meta.MAML(
                    residual(),
                    inner_rate=0.01,
                    learning_rate=1e-4,
                    head="prototypes",
                    keep_head=True,
                ),
                {"ways": trained_ways, "shots": 1, "queries": 5, "episodes": 600},
            ),
            "Reptile": (
                lambda: ft.meta.Reptile(
                    residual(), inner_rate=1e-3, steps=8, adapt_steps=50, keep_head=True
                ),
                {"ways": ways, "shots": 10, "episodes": 500},
            ),
        }
        for name, (learner, fit) in learners.items():
            report(
                options,
                "clinc150",
                name,
                learner,
                train_classes,
                test_classes,
                ways,
                (1, 5),
                fit,
                episodes,
            )


def residual():
    """A layer that starts as the identity, so that nothing is lost before it is trained."""
    inputs = keras.Input((WIDTH,), name="vectors")
    change = keras.layers.Dense(WIDTH, kernel_initializer="zeros", name="change")(inputs)
    return keras.Model(inputs, keras.layers.Add()([inputs, change]), name="residual")


def intents(options):
    """Vectors and labels of 100 intents to train with, and of 50 other ones."""
    folder = options.data / "clinc150"
    train = ft.data.from_csv(folder / "train.csv")
    test = ft.data.from_csv(folder / "test.csv")
    known, _ = ft.meta.split_classes(train, test=1 / 3, seed=0)
    labels = np.array(known.columns["label"])
    chosen = np.concatenate([np.flatnonzero(labels == name)[:40] for name in known.labels])
    known = known[chosen]
    new = test[[i for i, name in enumerate(test.columns["label"]) if name not in known.labels]]
    model = ft.load(minilm(), "feature-extraction")
    return [
        (np.asarray(ft.predict(model, part.columns["text"])), np.array(part.columns["label"]))
        for part in (known, new)
    ]


if __name__ == "__main__":
    main()
