"""What a picture adds to a question, and how well captions and pictures find each other.

    python benchmarks/fusion.py questions --data ../shared/data --weights ../shared/weights
    python benchmarks/fusion.py captions --data ../shared/data --weights ../shared/weights
    python benchmarks/fusion.py cache --data ../shared/data --weights ../shared/weights

MiniLM and a MobileNetV2 with images of 96 x 96 pixels, both frozen, whose features are computed
once and stored in --features.

"questions" trains heads on questions about small pictures (easy-VQA): on the text alone, on the
image alone, and on both, joined in three ways. PyTorch trains heads with the same layers on the
same features, in the same batches, with the same optimizer and schedule; initial weights have the
same distribution but other values, so the spread over seeds is what to compare with. "captions"
trains projections of photographs and their captions with a contrastive loss, against the recall of
chance. "cache" compares the processor seconds of epochs with and without cached features.

A run is a line of JSON in --output; runs that are there are not repeated.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import keras
from sides.common import Clock

import finetune_tf as ft
from finetune_tf.demo import minilm

PARTS = ("text", "image")
FUSIONS = ("concatenation", "gate", "cross_attention")
BATCH, RATE, SIZE, DROPOUT = 64, 2e-3, 256, 0.1
EPOCHS = {"questions": 8, "captions": 15, "cache": 3}


def make_model(kind: str, labels: Any, weights: Path) -> ft.FineTuneModel:
    """A model with frozen encoders and a new head.

    Args:
        kind: One of `PARTS` and `FUSIONS`, or "retrieval".
        labels: The labels; ignored for "retrieval".
        weights: The folder with mobilenet_v2_100/.
    """
    mobilenet = weights / "mobilenet_v2_100"
    with ft.messages.quiet():
        if kind == "text":
            options = {"pooling": "mean", "dropout": DROPOUT}
            model = ft.load(minilm(), "text-classification", labels=labels, **options)
        elif kind == "image":
            options = {"image_size": 96, "new_head": True, "dropout": DROPOUT}
            model = ft.load(mobilenet, labels=labels, **options)
        else:
            images = ft.load(mobilenet, "image-feature-extraction", image_size=96)
            texts = ft.load(minilm(), "feature-extraction")
            if kind == "retrieval":
                return ft.fuse(images, texts, size=SIZE)
            return ft.fuse(images, texts, labels, how=kind, size=SIZE)
        ft.train_only(model, ft.select.head())
    return model


def questions(given: argparse.Namespace) -> None:
    """Trains heads here and in PyTorch."""
    columns = {"image": "image", "text": "question", "label": "answer"}
    train, test = (
        ft.data.from_jsonl(given.data / "easy_vqa" / f"{part}.jsonl", **columns)
        for part in ("train", "test")
    )
    done = read(given.output)
    for seed in given.seeds:
        if ("questions", seed) in done:
            continue
        models, accuracies = {}, {}
        for kind in (*PARTS, *FUSIONS):
            keras.utils.set_random_seed(seed)
            model = make_model(kind, train.labels, given.weights)
            learner = ft.cache_features(model, given.features)
            learner.compile(**ft.presets.cross_entropy(learning_rate=RATE))
            batches = train.batches(learner, BATCH, shuffle=True, seed=seed)
            learner.fit(batches, epochs=EPOCHS["questions"], verbose=0)
            models[kind] = learner
            if not given.no_pytorch:
                accuracies[kind] = in_pytorch(kind, learner, train, test, seed)
            print(f"{seed} {kind} is trained", file=sys.stderr, flush=True)
        baseline = {} if seed else {"baseline": "auto", "train": train}
        comparison = ft.compare(models, test, **baseline)
        print(comparison)
        rows = comparison.to_dict()["rows"]
        write(
            given.output, {"name": "questions", "seed": seed, "rows": rows, "pytorch": accuracies}
        )


def in_pytorch(kind: str, learner: Any, train: Any, test: Any, seed: int) -> float:
    """The accuracy of a head of PyTorch on the same features, in the same batches."""
    import torch
    from sides.fusion_pytorch import accuracy

    torch.manual_seed(seed)
    return accuracy(
        kind,
        train.batches(learner, BATCH, shuffle=True, seed=seed),
        test.batches(learner, BATCH),
        EPOCHS["questions"],
        RATE,
        len(train.labels),
        DROPOUT,
        SIZE,
    )


def captions(given: argparse.Namespace) -> None:
    """Trains projections of photographs and captions, and measures how they find each other."""
    train, test = (read_captions(given.data / "captions" / f"{p}.jsonl") for p in ("train", "test"))
    done = read(given.output)
    for seed in given.seeds:
        if ("captions", seed) in done:
            continue
        keras.utils.set_random_seed(seed)
        learner = ft.cache_features(make_model("retrieval", None, given.weights), given.features)
        learner.compile(**ft.presets.contrastive(learning_rate=RATE))
        batches = train.batches(learner, 2 * BATCH, shuffle=True, seed=seed)
        learner.fit(batches, epochs=EPOCHS["captions"], verbose=0)
        report = ft.evaluate(learner, test, baseline="chance", train=train)
        print(report)
        found = report.to_dict()
        keys = ("metrics", "baseline", "difference", "further_differences")
        write(given.output, {"name": "captions", "seed": seed} | {key: found[key] for key in keys})


def read_captions(path: Path) -> ft.data.Examples:
    """A row for each caption; each photograph has five."""
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    pairs = [(path.parent / row["image"], text) for row in rows for text in row["captions"]]
    images, texts = zip(*pairs, strict=True)
    return ft.data.from_arrays(image=list(images), text=list(texts), name=path.name)


def cache(given: argparse.Namespace) -> None:
    """Measures epochs of a head with and without cached features, on a part of the questions."""
    columns = {"image": "image", "text": "question", "label": "answer"}
    train = ft.data.from_jsonl(given.data / "easy_vqa" / "train.jsonl", **columns).take(given.rows)
    for is_cached in (True, False):
        keras.utils.set_random_seed(0)
        model = make_model("concatenation", train.labels, given.weights)
        train.batches(model, BATCH)  # the images are prepared
        clock = Clock()
        learner = ft.cache_features(model) if is_cached else model
        learner.compile(**ft.presets.cross_entropy(learning_rate=RATE))
        at_end = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs, clock=clock: clock.mark()
        )
        batches = train.batches(learner, BATCH, shuffle=True)
        learner.fit(batches, epochs=EPOCHS["cache"], verbose=0, callbacks=[at_end])
        found = {"name": "cache", "seed": 0, "cached": is_cached, "rows": len(train)}
        images = len(set(map(str, train.columns["image"])))
        write(given.output, found | {"images": images} | clock.result())


def read(output: Path) -> set[tuple[str, int]]:
    """The runs that are in a file."""
    lines = output.read_text("utf-8").splitlines() if output.exists() else []
    return {(row["name"], row["seed"]) for row in map(json.loads, lines)}


def write(output: Path, row: dict) -> None:
    """Adds a run to the file and prints it."""
    print(json.dumps(row), flush=True)
    with output.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def table(output: Path) -> str:
    """The accuracies of the questions, of all seeds in a file, as a table."""
    lines = output.read_text("utf-8").splitlines() if output.exists() else []
    runs = [row for row in map(json.loads, lines) if row["name"] == "questions"]
    rows = ["| input | finetune_tf | PyTorch | against the text alone |", "|---|---|---|---|"]
    for kind in (*PARTS, *FUSIONS) if runs else ():
        ours = [next(row for row in run["rows"] if row["name"] == kind) for run in runs]
        difference = ours[0]["difference"]
        against = "-"
        if difference:
            value, low, high = (difference[key] for key in ("value", "low", "high"))
            against = f"{value:+.3f} ({low:+.3f} to {high:+.3f})"
        sides = (
            [row["metrics"]["accuracy"] for row in ours],
            [r["pytorch"].get(kind) for r in runs],
        )
        cells = [
            f"{statistics.mean(side):.3f} ({min(side):.3f} to {max(side):.3f})"
            if None not in side
            else "-"
            for side in sides
        ]
        rows.append(f"| {kind} | {' | '.join(cells)} | {against} |")
    return "\n".join(rows)


def main() -> None:
    """Runs what is missing in the output, and prints the table of the questions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=["questions", "captions", "cache"])
    parser.add_argument("--data", type=Path, required=True, help="with easy_vqa/ and captions/")
    parser.add_argument("--weights", type=Path, required=True, help="with mobilenet_v2_100/")
    parser.add_argument("--features", type=Path, help="folder that keeps features between runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", type=int, default=512, help="of the measurement of the cache")
    parser.add_argument("--no-pytorch", action="store_true")
    parser.add_argument("--output", type=Path, default=Path("fusion.jsonl"))
    given = parser.parse_args()
    {"questions": questions, "captions": captions, "cache": cache}[given.name](given)
    print(table(given.output))


if __name__ == "__main__":
    main()
