"""Which classes are confused, how well each is recognized, and predicted numbers."""

import numpy as np

from finetune_tf.evaluation.evaluators.registry import EVALUATORS
from finetune_tf.pages.charts import bar, heat_map, scatter
from finetune_tf.pages.content import Content
from finetune_tf.pages.elements import Html, join, name, table, tag
from finetune_tf.pages.numbers import decimal

_MAX_PAIRS = 20
_MAX_ROWS = 50
_MAX_CELLS = 4000  # drawn cells of a matrix, at about 150 bytes each
_MAX_POINTS = 1500


def confusion(content: Content) -> Html | None:
    """Returns the confusion matrix and the pairs of classes that are confused most."""
    words, report = content.words, content.report
    if report.confusion is None:
        return None
    counts = np.asarray(report.confusion)
    wrong = counts - np.diag(np.diag(counts))
    errors, total = int(wrong.sum()), int(counts.sum())
    lead = words.html("confusion.errors", n=f"{errors:,}", total=f"{total:,}")
    parts = [tag("p", lead)]
    if np.count_nonzero(counts) <= _MAX_CELLS:
        axes = words("confusion.predicted"), words("confusion.true")
        parts.append(heat_map(words("confusion.chart"), counts, list(report.labels), *axes))
    else:
        parts.append(tag("p", words.html("confusion.too_large"), class_="faint"))
    if errors:
        parts.append(_pairs(content, counts, wrong, errors))
    return join(parts)


def _pairs(content: Content, counts: np.ndarray, wrong: np.ndarray, errors: int) -> Html:
    words, labels = content.words, content.report.labels
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MAX_PAIRS]
    places = [divmod(int(place), len(wrong)) for place in order]
    places = [(row, column) for row, column in places if wrong[row, column]]
    support = counts.sum(axis=1)
    rows = [
        [
            name(labels[row]),
            name(labels[column]),
            f"{wrong[row, column]:,}",
            f"{wrong[row, column] / support[row]:.0%}",
            f"{wrong[column, row]:,}",
        ]
        for row, column in places
    ]
    header = [words(f"confusion.{key}") for key in ("true", "predicted", "n", "share", "reverse")]
    covered = int(sum(wrong[place] for place in places))
    caption = words.html("confusion.pairs", n=len(rows), covered=f"{covered / errors:.0%}")
    return table(header, rows, numeric=(2, 3, 4), caption=caption)


def classes(content: Content) -> Html | None:
    """Returns precision, recall and F1 of the classes, those with the lowest F1 first."""
    words, per_class = content.words, content.report.per_class
    if not per_class:
        return None
    present = [label for label in per_class if per_class[label]["support"]]
    shown = sorted(present, key=lambda label: per_class[label]["f1"])[:_MAX_ROWS]
    rows = [
        [
            name(label),
            *(decimal(per_class[label][key]) for key in ("precision", "recall", "f1")),
            bar(per_class[label]["f1"], f"{per_class[label]['f1']:.3f}"),
            f"{per_class[label]['support']:,}",
        ]
        for label in shown
    ]
    header = [words("classes.class")]
    header += [words.title_of("metric", key) for key in ("precision", "recall", "f1")]
    header += ["", words("classes.support")]
    lines = [tag("p", words.html("classes.order"))]
    for key, missing in (
        ("classes.not_shown", len(present) - len(shown)),
        ("classes.absent", len(per_class) - len(present)),
    ):
        if missing:
            lines.append(tag("p", words.html(key, n=missing), class_="faint"))
    return join([*lines, table(header, rows, numeric=(1, 2, 3, 5))])


def predictions(content: Content) -> Html | None:
    """Returns predicted numbers against the true ones, for tasks that predict numbers."""
    words, report = content.words, content.report
    drawing = EVALUATORS[report.kind].drawing
    if not drawing.startswith("scatter"):
        return None
    targets, predicted = np.float64(report.targets), np.float64(report.predictions)
    parts = []
    if len(targets) > _MAX_POINTS:
        rows = np.random.default_rng(0).permutation(len(targets))[:_MAX_POINTS]
        count = words.html("predictions.sample", n=f"{_MAX_POINTS:,}", total=f"{len(targets):,}")
        parts.append(tag("p", count, class_="faint"))
        targets, predicted = targets[rows], predicted[rows]
    has_one_scale = drawing == "scatter on one scale"
    title = words("predictions.chart_line" if has_one_scale else "predictions.chart")
    axes = words("predictions.true"), words("predictions.predicted")
    return join([*parts, scatter(title, targets, predicted, *axes, diagonal=has_one_scale)])
