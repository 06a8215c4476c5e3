"""Figures of this package. This module needs matplotlib and is imported lazily."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from finetune_tf.evaluation.figures import (
    INK,
    NotebookFigure,
    font_families,
    replace_undrawable,
    style_axes,
    truncate_name,
)

if TYPE_CHECKING:
    from finetune_tf.search.ranking import Ranking
    from finetune_tf.search.rate_curve import RateCurve
    from finetune_tf.search.tuned import TuneResult

_DOTTED = (0, (4, 3))


def rate_figure(curve: "RateCurve") -> Figure:
    """Draws the losses by rate on a logarithmic axis, with the suggestion."""
    figure = NotebookFigure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    axes.plot(curve.rates, curve.losses, ".", color="C0", alpha=0.35, label="loss of a step")
    axes.plot(curve.rates, curve.smoothed, color="C0", label="smoothed")
    if curve.suggestion is not None:
        label = f"suggestion {curve.suggestion:.2g}"
        axes.axvline(curve.suggestion, color="C3", linestyle=_DOTTED, label=label)
    axes.set_xscale("log")
    # Losses of a diverged model would hide where the loss falls.
    low, start = curve.smoothed.min(), curve.smoothed[0]
    margin = 0.15 * max(start - low, 1e-3 * abs(start))
    axes.set_ylim(min(low, curve.losses.min()) - margin, 2 * start - low + margin)
    style_axes(axes, "Training loss by learning rate")
    axes.set_xlabel("learning rate", color=INK)
    axes.legend(frameon=False)
    return figure


def tune_figure(result: "TuneResult") -> Figure:
    """Draws the validation results in the order of the trials, and by learning rate."""
    shown = [trial for trial in result.trials if trial.value is not None]
    with_rate = [trial for trial in shown if _is_number(trial.settings.get("learning_rate"))]
    figure = NotebookFigure(figsize=(10 if with_rate else 5.4, 3.8), layout="constrained")
    panels = figure.subplots(1, 2 if with_rate else 1, sharey=True, squeeze=False)[0]
    places = {id(trial): place for place, trial in enumerate(result.trials)}
    _draw_trials(panels[0], result, shown, [places[id(trial)] for trial in shown])
    finished = [trial for trial in shown if trial.state == "finished"]
    best = np.maximum if result.higher_is_better else np.minimum
    panels[0].step(
        [places[id(trial)] for trial in finished],
        best.accumulate([trial.value for trial in finished]),
        where="post", color="C3", linewidth=1, label="best so far",
    )  # fmt: skip
    panels[0].set_xlabel("trial, 0 with the default settings", color=INK)
    note = "higher" if result.higher_is_better else "lower"
    style_axes(panels[0], f"{result.metric} ({note} is better)")
    panels[0].legend(frameon=False)
    if with_rate:
        rates = [trial.settings["learning_rate"] for trial in with_rate]
        _draw_trials(panels[1], result, with_rate, rates)
        panels[1].set_xscale("log")
        panels[1].set_xlabel("learning rate", color=INK)
        style_axes(panels[1], f"{result.metric} by learning rate")
    return figure


def _draw_trials(axes: object, result: "TuneResult", trials: list, places: list) -> None:
    for state, marker in (("finished", "o"), ("stopped early", "x")):
        points = [
            (place, trial.value)
            for place, trial in zip(places, trials, strict=True)
            if trial.state == state
        ]
        if points:
            axes.plot(*zip(*points, strict=True), marker, color="C0", label=state, alpha=0.8)


def ranking_figure(ranking: "Ranking") -> Figure:
    """Draws both scores of each checkpoint with their intervals, the best checkpoint on top."""
    rows = ranking.rows[::-1]
    figure = NotebookFigure(figsize=(10, 1.6 + 0.4 * len(rows)), layout="constrained")
    names = replace_undrawable([truncate_name(row.name) for row in rows], "checkpoint")
    titles = {"h_score": "H-score", "probe": f"probe {ranking.metric}"}
    for axes, (score, title) in zip(
        figure.subplots(1, 2, sharey=True), titles.items(), strict=True
    ):
        for place, row in enumerate(rows):
            value = getattr(row, score)
            axes.plot([value.low, value.high], [place, place], color="C0", linewidth=2, alpha=0.5)
            axes.plot(value.value, place, "o", color="C0")
        style_axes(axes, f"{title} (higher is better), 95% interval")
        axes.set_yticks(range(len(rows)), names, fontfamily=font_families())
    return figure


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)
