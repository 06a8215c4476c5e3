"""The figure of an `InterpolationCurve`. This module needs matplotlib and is imported lazily."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from finetune_tf.evaluation.evaluators.registry import direction_note
from finetune_tf.evaluation.figures import (
    INK,
    NotebookFigure,
    font_families,
    replace_undrawable,
    style_axes,
    truncate_name,
)

if TYPE_CHECKING:
    from finetune_tf.evaluation.interpolation import InterpolationCurve


def interpolation_figure(curve: "InterpolationCurve") -> Figure:
    """Draws the main metric by share, and the differences to before with their intervals."""
    figure = NotebookFigure(figsize=(11, 4.2), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)
    values, differences = figure.subplots(1, 2, sharex=True)
    by_name = curve.by_name()
    names = replace_undrawable([truncate_name(name) for name in by_name], "test")
    for number, (name, points) in enumerate(zip(names, by_name.values(), strict=True)):
        shares, color = [point.share for point in points], f"C{number}"
        metric = [point.metrics[curve.main_metric] for point in points]
        values.plot(shares, metric, marker="o", markersize=5, color=color, label=name)
        ends = np.array(
            [
                (0, 0, 0) if point.from_before is None
                else (point.from_before.value, point.from_before.low, point.from_before.high)
                for point in points
            ]
        )  # fmt: skip
        differences.plot(shares, ends[:, 0], marker="o", markersize=5, color=color)
        differences.fill_between(shares, ends[:, 1], ends[:, 2], color=color, alpha=0.15)
    differences.axhline(0, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    note = direction_note(curve.kind, " (", ")")
    style_axes(values, f"{curve.main_metric}{note}")
    style_axes(differences, f"Difference in {curve.main_metric} to before{note}, 95% interval")
    for axes in (values, differences):
        axes.set_xlabel("share of the weights after fine-tuning", color=INK)
        axes.set_xlim(-0.02, 1.02)
    values.legend(frameon=False, prop={"family": font_families(), "size": 9})
    return figure
