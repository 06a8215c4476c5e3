"""Figures of this package. This module needs matplotlib and is imported lazily."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from finetune_tf.evaluation.figures import INK, NotebookFigure, replace_undrawable, style_axes

if TYPE_CHECKING:
    from finetune_tf.calibration.abstaining import CoverageCurve
    from finetune_tf.calibration.results import ReliabilityBin

_DOTTED = (0, (4, 3))


def reliability_figure(bins: "dict[str, list[ReliabilityBin]]") -> Figure:
    """Draws reliability diagrams with intervals, and how many decisions each bin has below.

    Args:
        bins: The bins of each diagram by its title.
    """
    figure = NotebookFigure(figsize=(4.4 * len(bins), 4.8), layout="constrained")
    panels = figure.subplots(2, len(bins), height_ratios=(4, 1), squeeze=False, sharex=True)
    titles = replace_undrawable(list(bins), "data")
    for (upper, lower), title, rows in zip(panels.T, titles, bins.values(), strict=True):
        means = np.array([each.confidence for each in rows])
        shares = np.array([each.frequency.value for each in rows])
        ends = [[e.frequency.value - e.frequency.low for e in rows],
                [e.frequency.high - e.frequency.value for e in rows]]  # fmt: skip
        upper.plot([0, 1], [0, 1], color=INK, linestyle=_DOTTED, linewidth=1)
        upper.errorbar(means, shares, ends, fmt="o-", color="C0", ecolor="#b4bcc4", markersize=4)
        upper.set(xlim=(0, 1), ylim=(0, 1.02))
        upper.set_ylabel("frequency", color=INK)
        style_axes(upper, title)
        edges = [each.low for each in rows]
        lower.bar(edges, [each.size for each in rows], width=1 / 15, align="edge", color="#b4bcc4")
        style_axes(lower, "")
        lower.set_xlabel("probability", color=INK)
        lower.set_ylabel("decisions", color=INK)
    return figure


def coverage_figure(curve: "CoverageCurve") -> Figure:
    """Draws the accuracy of the decisions that are kept by their share, with intervals."""
    figure = NotebookFigure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    coverage = [point.coverage for point in curve.rows]
    low, high = ([getattr(p.accuracy, end) for p in curve.rows] for end in ("low", "high"))
    axes.fill_between(coverage, low, high, color="C0", alpha=0.2, linewidth=0)
    axes.plot(coverage, [p.accuracy.value for p in curve.rows], "o-", color="C0", markersize=4)
    axes.axhline(curve.accuracy.value, color=INK, linestyle=_DOTTED, linewidth=1)
    axes.set(xlim=(0, 1.01))
    style_axes(axes, "Accuracy of what is not abstained from")
    axes.set_xlabel("coverage", color=INK)
    axes.set_ylabel("accuracy", color=INK)
    return figure
