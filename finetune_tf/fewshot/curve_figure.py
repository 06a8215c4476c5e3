"""The figure of a `LearningCurve`. This module needs matplotlib and is imported lazily."""

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from finetune_tf.evaluation.figures import (
    INK,
    NotebookFigure,
    font_families,
    replace_undrawable,
    style_axes,
)

if TYPE_CHECKING:
    from finetune_tf.fewshot.curve_result import LearningCurve


def curve_figure(curve: "LearningCurve") -> Figure:
    """Draws the mean of each method by the number of examples, with bands of 95 %."""
    figure = NotebookFigure(figsize=(7, 4.4), layout="constrained")
    axes = figure.subplots()
    for number, method in enumerate(curve.methods):
        cells = [curve.cell(method, shots) for shots in curve.shots]
        color = f"C{number}"
        means = [cell.mean for cell in cells]
        axes.plot(curve.shots, means, marker="o", markersize=5, color=color, label=method)
        lows, highs = zip(*((c.interval.low, c.interval.high) for c in cells), strict=True)
        axes.fill_between(curve.shots, lows, highs, color=color, alpha=0.12, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.set_xticks(curve.shots, [str(shots) for shots in curve.shots])
    axes.minorticks_off()
    axes.set_xlabel("examples of each class", color=INK)
    (name,) = replace_undrawable([curve.name], "test")
    style_axes(axes, f"{curve.metric} on {name}, mean of {curve.splits} draws with 95% interval")
    axes.legend(frameon=False, loc="lower right", prop={"family": font_families(), "size": 9})
    return figure
