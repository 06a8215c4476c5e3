"""Figures of reports and comparisons. This module needs matplotlib and is imported lazily.

Figures are created without pyplot, so the caller's backend and open figures do not change.
"""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font

from finetune_tf.evaluation.bootstrap import Difference
from finetune_tf.evaluation.evaluators.registry import EVALUATORS, direction_note

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

    from finetune_tf.evaluation.comparison import Comparison
    from finetune_tf.evaluation.report import Report

_MODEL, _OTHER, INK, _FAINT = "#2b5c8a", "#b4bcc4", "#24292f", "#d5d9de"
_MAX_NUMBERED_CLASSES = 10
_MAX_NAMED_CLASSES = 30
_MAX_NAME_LENGTH = 20
# Metrics that can exceed 1 cannot share an axis with the others.
_UNBOUNDED = ("mse", "mae", "perplexity", "bleu", "chrf")

# Fonts with Chinese, Japanese or Korean characters on the usual systems.
_CJK_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "PingFang SC",
    "Hiragino Sans GB", "Microsoft YaHei", "SimHei", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei",
    "Arial Unicode MS",
)  # fmt: skip


class NotebookFigure(Figure):
    """A figure that notebooks display although it was created without pyplot."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=100)
        return buffer.getvalue()


def report_figure(report: "Report") -> Figure:
    """Draws the predictions on the left, and the metrics of model and baseline on the right.

    If the kind of task has no plot of its predictions, the metrics fill the figure.
    """
    left = DRAWINGS[EVALUATORS[report.kind].drawing]
    if left is _draw_label_scores and not report.per_class:
        left = None
    figure = _create_figure(report, len(report.targets), height=5.2)
    layout = [["metrics"]] if report.difference is None else [["metrics"], ["difference"]]
    if left is not None:
        layout = [["left", *row] for row in layout]
    axes = figure.subplot_mosaic(
        layout, width_ratios=(1.1, 1)[: len(layout[0])], height_ratios=(3, 1)[: len(layout)]
    )
    if report.difference is not None:
        _draw_differences(
            axes["difference"], [report.difference], direction_note(report.kind, " (", ")")
        )
        axes["difference"].set_ylim(0.6, -0.9)
    if left is not None:
        left(axes["left"], report)
    _draw_metrics(axes["metrics"], report)
    return figure


def comparison_figure(comparison: "Comparison") -> Figure:
    """Draws the main metric of each model, and the differences to the first with intervals."""
    rows, metric = comparison.rows, comparison.main_metric
    figure = _create_figure(comparison, comparison.texts, height=1.9 + 0.5 * len(rows))
    bars, differences = figure.subplots(1, 2, width_ratios=(1.2, 1))
    values = [row.metrics[metric] for row in rows]
    colors = [_OTHER if row.trainable_parameters is None else _MODEL for row in rows]
    places = np.arange(len(rows))
    bars.barh(places, values, height=0.6, color=colors)
    for place, value in zip(places, values, strict=True):
        _label_value(bars, place, value)
    names = replace_undrawable([truncate_name(row.name) for row in rows], "model")
    _set_tick_names(bars.yaxis, names)
    bars.invert_yaxis()
    _set_metric_limits(bars, values)
    style_axes(bars, f"{metric}{direction_note(comparison.kind, ' (', ')')}")
    if len(rows) > 1:
        _draw_differences(differences, [row.difference for row in rows], f" to {names[0]}")
        differences.set_ylim(bars.get_ylim())
    else:
        differences.set_visible(False)
    return figure


def _draw_confusion(axes: "Axes", report: "Report") -> None:
    counts = report.confusion
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(counts) <= _MAX_NUMBERED_CLASSES:
        for (row, column), count in np.ndenumerate(counts):
            axes.text(
                column, row, f"{count:,}", ha="center", va="center", fontsize=10,
                color="white" if shares[row, column] > 0.55 else INK,
            )  # fmt: skip
    if len(counts) <= _MAX_NAMED_CLASSES:
        names = replace_undrawable(report.labels, "class")
        _set_tick_names(axes.yaxis, names)
        _set_tick_names(axes.xaxis, names)
        if len(counts) > 3:
            axes.tick_params(axis="x", labelrotation=90)
    axes.tick_params(length=0, colors=INK)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="predicted", ylabel="truth")
    axes.set_title("Confusion", loc="left", fontsize=11, color=INK)
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.8, ticks=[0, 0.5, 1], format="{x:.0%}")
    bar.set_label("share of the true class")
    bar.outline.set_visible(False)


def _draw_label_scores(axes: "Axes", report: "Report") -> None:
    labels = list(report.per_class)
    names = dict(zip(labels, replace_undrawable(labels, "label"), strict=True))
    f1 = {names[label]: values["f1"] for label, values in report.per_class.items()}
    weakest = sorted(f1, key=f1.get)[:_MAX_NAMED_CLASSES]
    names, values = weakest[::-1], [f1[name] for name in weakest[::-1]]
    axes.barh(np.arange(len(names)), values, height=0.65, color=_MODEL)
    if len(names) <= _MAX_NUMBERED_CLASSES:
        for place, value in enumerate(values):
            _label_value(axes, place, value)
    _set_tick_names(axes.yaxis, names)
    axes.invert_yaxis()
    _set_metric_limits(axes, values)
    style_axes(axes, "f1 of each label" if len(names) == len(f1) else "f1 of the weakest labels")


def _draw_regression(axes: "Axes", report: "Report") -> None:
    targets, predictions = report.targets, report.predictions
    ends = [min(targets.min(), predictions.min()), max(targets.max(), predictions.max())]
    axes.plot(ends, ends, color=_FAINT, linewidth=1.5, zorder=1)
    _draw_scatter(axes, report, "Predictions (correct predictions lie on the line)")


def _draw_scatter(axes: "Axes", report: "Report", title: str = "Predictions") -> None:
    targets, predictions = report.targets, report.predictions
    opacity = float(np.clip(60 / np.sqrt(len(targets)) / 10, 0.15, 0.8))
    axes.scatter(targets, predictions, s=14, color=_MODEL, alpha=opacity, linewidths=0, zorder=2)
    axes.set(xlabel="truth", ylabel="predicted")
    style_axes(axes, title)


def _draw_main_metric(axes: "Axes", report: "Report") -> None:
    """Draws a metric that has no upper bound and therefore needs its own axis."""
    metric, sides = report.main_metric, _model_and_baseline(report)
    for place, (_, metrics, color) in enumerate(sides):
        axes.barh(place, metrics[metric], height=0.5, color=color)
        _label_value(axes, place, metrics[metric])
    _set_tick_names(axes.yaxis, [name for name, *_ in sides])
    axes.set_ylim(len(sides) - 0.4, -0.6)
    axes.set_xlim(0, 1.2 * max(metrics[metric] for _, metrics, _ in sides))
    style_axes(axes, f"{metric}{direction_note(report.kind, ' (', ')')}")


#: What is drawn beside the metrics, by `Evaluator.drawing`.
DRAWINGS = {
    "confusion": _draw_confusion,
    "label scores": _draw_label_scores,
    "scatter": _draw_scatter,
    "scatter on one scale": _draw_regression,
    "main metric": _draw_main_metric,
}


def _model_and_baseline(report: "Report") -> list[tuple[str, dict[str, float], str]]:
    """Returns names, metrics and colors of the model and, if there is one, the baseline."""
    sides = [("fine-tuned", report.metrics, _MODEL)]
    if report.baseline is not None:
        sides.append((f"baseline {report.baseline.name}", report.baseline.metrics, _OTHER))
    return sides


def _draw_metrics(axes: "Axes", report: "Report") -> None:
    names = [name for name in report.metrics if name not in _UNBOUNDED] or list(report.metrics)
    sides = _model_and_baseline(report)
    height, places = 0.75 / max(len(sides), 1.5), np.arange(len(names))
    shown = []
    for i, (name, metrics, color) in enumerate(sides):
        offsets = places + (i - (len(sides) - 1) / 2) * height
        # Predictions without scores, such as those of the caller, lack the metrics of scores.
        values = [metrics.get(metric, 0.0) for metric in names]
        axes.barh(offsets, values, height=height * 0.92, color=color, label=name)
        for place, metric in zip(offsets, names, strict=True):
            if metric in metrics:
                _label_value(axes, place, metrics[metric])
        shown += values
    _set_tick_names(axes.yaxis, names)
    axes.invert_yaxis()
    _set_metric_limits(axes, shown)
    style_axes(axes, "Metrics")
    if len(sides) > 1:
        axes.legend(
            frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.3,
            fontsize=9,
        )  # fmt: skip


def _draw_differences(
    axes: "Axes", differences: Sequence[Difference | None], reference: str = ""
) -> None:
    """Draws differences as dots with 95 % intervals, and a line at zero."""
    axes.axvline(0, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    farthest = 0.02
    for place, difference in enumerate(differences):
        if difference is None:  # the reference model itself
            continue
        axes.plot([difference.low, difference.high], [place, place], color=_MODEL, linewidth=2.5)
        axes.plot(difference.value, place, "o", color=_MODEL, markersize=7)
        axes.annotate(
            f"{difference.value:+.3f}", (difference.value, place), xytext=(0, 8),
            textcoords="offset points", ha="center", fontsize=9, color=INK,
        )  # fmt: skip
        farthest = max(farthest, abs(difference.low), abs(difference.high))
        metric = difference.metric
    axes.set(xlim=(-1.15 * farthest, 1.15 * farthest), yticks=[])
    axes.locator_params(axis="x", nbins=6)
    style_axes(axes, f"Difference in {metric}{reference}, 95% interval")


def _create_figure(result: "Report | Comparison", size: int, height: float) -> NotebookFigure:
    figure = NotebookFigure(figsize=(11, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)
    (name,) = replace_undrawable([result.name], "test")
    figure.suptitle(
        f"{name}  ({size:,} {result.unit})", x=0.012, ha="left",
        fontsize=13, fontweight="bold", color=INK, fontfamily=font_families(),
    )  # fmt: skip
    return figure


def _set_tick_names(axis: "Axis", names: Sequence[str]) -> None:
    axis.set_ticks(np.arange(len(names)), [truncate_name(name) for name in names])
    for label in axis.get_ticklabels():
        label.set(fontfamily=font_families(), fontsize=10 if len(names) <= 12 else 8)


def _label_value(axes: "Axes", place: float, value: float) -> None:
    axes.annotate(
        f"{value:.3f}", (max(value, 0), place), xytext=(4, 0), textcoords="offset points",
        va="center", fontsize=9, color=INK,
    )  # fmt: skip


def _set_metric_limits(axes: "Axes", values: Sequence[float]) -> None:
    if max(values) > 1:  # an unbounded metric
        axes.set_xlim(0, max(values) * 1.2)
        return
    # All other metrics are at most 1; only correlations can be negative.
    axes.set_xlim(min(0, *values, 0) * 1.1, 1.12)
    axes.set_xticks([tick for tick in (-1, -0.5, 0, 0.25, 0.5, 0.75, 1) if tick >= min(0, *values)])


def style_axes(axes: "Axes", title: str) -> None:
    """Sets the title and the style that all axes of figures share."""
    axes.set_title(title, loc="left", fontsize=11, color=INK, fontfamily=font_families())
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_FAINT)
    axes.tick_params(length=0, colors=INK)


def truncate_name(name: str) -> str:
    """Shortens a long name of a class or model."""
    # Cut the middle out, because class names often differ at their ends only.
    half = _MAX_NAME_LENGTH // 2
    return name if len(name) <= _MAX_NAME_LENGTH else f"{name[:half]}…{name[1 - half :]}"


def font_families() -> list[str]:
    """Returns the font families in which matplotlib looks for a character, in this order."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in _CJK_FONTS if name in installed)]


def replace_undrawable(names: Sequence[str], kind: str) -> list[str]:
    """Replaces names with characters that no installed font has by a number.

    Args:
        names: The names.
        kind: What the names are of, as in "class 3".
    """
    known = set()
    for family in font_families():
        known |= FT2Font(font_manager.findfont(family)).get_charmap().keys()
    return [
        name if known.issuperset(map(ord, name)) else f"{kind} {i}" for i, name in enumerate(names)
    ]
