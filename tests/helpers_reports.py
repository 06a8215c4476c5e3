"""Reports and results of diagnosis with every difficulty that data can have, without a model."""

import numpy as np

import finetune_tf as ft
from finetune_tf import calibration, diagnosis
from finetune_tf.evaluation import Report
from finetune_tf.evaluation.bootstrap import metric_interval, paired_bootstrap
from finetune_tf.evaluation.evaluators.registry import EVALUATORS
from finetune_tf.evaluation.intervals import Interval, share
from finetune_tf.evaluation.metrics import compute_metrics, confusion, per_class
from finetune_tf.evaluation.report import Baseline

#: A text that runs as a script wherever it is not escaped.
EVIL = (
    "<script>window.hacked=true</script><img src=x onerror='window.hacked=true'>"
    '"><svg onload=window.hacked=true></svg></style></title>'
)
#: Names of classes: markup, quotes, right to left, emoji, a very long one, control characters.
NAMES = (
    "<script>window.hacked=true</script>",
    "good \"quoted\" 'name' & more",
    "ممتاز",
    "很好 👍🏽",
    "long" * 60,
    "bell\x07 \u202eover \ud800 half",
)
TEXTS = (
    EVIL,
    "שלום עולם: טוב מאוד!",
    "👩‍💻 wrote 很好的电影\nin two lines",
    "w" * 5000,
    "one word after another " * 400,
    "\x1b[31mred\x1b[0m \ud800 \u202e reversed",
)
HISTORY = {
    "loss": [0.7, 0.4, 0.3], "val_loss": [0.6, 0.45, 0.5],
    "accuracy": [0.6, 0.8, 0.9], "val_accuracy": [0.65, 0.8, 0.79],
}  # fmt: skip
SETTINGS = {
    "checkpoint": "bert-base-uncased", "train": "train.csv", "validation": "train.csv",
    "test": "<b>test</b>.csv", "task": "text-classification", "policy": "full", "epochs": 3,
    "learning_rate": "auto", "rates": {"head()": 10.0}, "seed": 1, "dropout": None,
}  # fmt: skip


def noisy(targets, classes, share, seed):
    """Class indices, a share of which are drawn at random."""
    random = np.random.default_rng(seed)
    drawn = random.integers(0, classes, len(targets))
    return np.where(random.random(len(targets)) < share, drawn, targets)


def report_on(names=NAMES, rows=300, **others):
    """A report on one label for each example, which is clearly better than its baseline."""
    labels = ft.Labels(names)
    targets = np.random.default_rng(0).integers(0, len(labels), rows)
    predictions, base = (noisy(targets, len(labels), share, 1) for share in (0.2, 0.6))
    evaluator = EVALUATORS[labels.problem_type]
    others = {
        "baseline": Baseline("tfidf", compute_metrics(targets, base, labels)),
        "difference": paired_bootstrap(evaluator, targets, predictions, base, n=200),
        "interval": metric_interval(evaluator, targets, predictions, n=200),
    } | others
    return Report(
        name="<b>test</b>.csv",
        labels=labels,
        metrics=compute_metrics(targets, predictions, labels),
        per_class=per_class(targets, predictions, labels),
        confusion=confusion(targets, predictions, labels),
        targets=targets,
        predictions=predictions,
        **others,
    )


def results(names=NAMES, rows=60):
    """One result of each function of ft.diagnosis, with difficult texts."""
    texts = [TEXTS[i % len(TEXTS)] for i in range(rows)]
    one, other = names[0], names[1]
    slices = [
        ("length", "1 to 12", 0.7, -0.1, 0.01),
        ("length", "13 to 40", 0.9, 0.1, 0.01),
        ("label", one, 0.8, 0.0, 1.0),
    ]
    bins = [
        calibration.ReliabilityBin(i / 15, (i + 1) / 15, 20 * i, (i + 0.5) / 15, share(i, 20))
        for i in range(5, 15)
    ]
    return [
        calibration.Measured(
            "test.csv", 300, Interval(0.5, 0.4, 0.6), Interval(0.3, 0.2, 0.4), bins
        ),
        diagnosis.TopLosses(
            [
                diagnosis.LossRow(i, f"line {i}", text, one, other, 0.01, 4.6)
                for i, text in enumerate(texts)
            ],
            "test.csv", 300, 0.4, 0.3,
        ),
        diagnosis.Slices(
            [
                diagnosis.SliceRow(
                    by, value, 100, Interval(metric, metric - 0.08, metric + 0.08),
                    Interval(gap, gap - 0.09, gap + 0.09), p,
                )
                for by, value, metric, gap, p in slices
            ],
            "test.csv", 300, "accuracy", Interval(0.8, 0.75, 0.85), 2,
        ),
        diagnosis.LabelErrors(
            [
                diagnosis.SuspectLabel(i, f"line {i}", text, one, other, 0.01, 0.97, True)
                for i, text in enumerate(texts)
            ],
            "test.csv", Interval(20, 10, 30), Interval(0.9, 0.88, 0.92),
        ),
        diagnosis.NearDuplicates(
            [
                diagnosis.DuplicatePair(i, i + 1, text, text, 0.99, one, names[i % 2])
                for i, text in enumerate(texts[:6])
            ],
            "test.csv", 300, 6, "train.csv", 0.95, 3,
        ),
        diagnosis.Drift(
            [diagnosis.DriftRow(i, f"line {i}", text, 0.9) for i, text in enumerate(texts[:6])],
            "test.csv", "train.csv", Interval(0.7, 0.66, 0.74), 0.001, 300, 300,
        ),
    ]  # fmt: skip
