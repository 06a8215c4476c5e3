"""`ft.fewshot.fit` and a probe on the draws of a job, for `fewshot.py`."""

import json
import sys
import time
from pathlib import Path

import common
import numpy as np

import finetune_tf as ft
from finetune_tf.fewshot.fitting import load_encoder

JOB = json.loads(Path(sys.argv[1]).read_text())
LABELS = ft.Labels(JOB["labels"])


def examples(columns: dict) -> ft.data.Examples:
    """Examples of texts and class numbers."""
    labels = [LABELS[number] for number in columns["label"]]
    return ft.data.from_arrays(columns["text"], labels, labels=LABELS)


def accuracy(model: ft.FineTuneModel, test: ft.data.Examples) -> float:
    """The accuracy on the test."""
    predicted = [each.label for each in ft.predict(model, test.columns["text"])]
    return float(np.mean([a == b for a, b in zip(predicted, test.columns["label"], strict=True)]))


def main() -> None:
    """Trains on each draw, and prints accuracies and processor seconds."""
    imported = common.peak_mb()
    test = examples(JOB["test"])
    result: dict[str, list] = {"accuracy": [], "processor": [], "probe": [], "probe_processor": []}
    with ft.messages.quiet():
        for draw in JOB["draws"]:
            train = examples(draw)
            begin = time.process_time()
            model = ft.fewshot.fit(JOB["checkpoint"], train, **JOB["settings"])
            result["processor"].append(time.process_time() - begin)
            result["accuracy"].append(accuracy(model, test))
            begin = time.process_time()
            model = ft.fewshot.fit_head(load_encoder(JOB["checkpoint"], train), train)
            result["probe_processor"].append(time.process_time() - begin)
            result["probe"].append(accuracy(model, test))
    common.tell(result, imported)


if __name__ == "__main__":
    main()
