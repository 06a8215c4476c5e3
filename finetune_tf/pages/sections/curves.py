"""Learning curves: loss and metrics by epoch."""

import math

from finetune_tf.pages.charts import line_chart
from finetune_tf.pages.content import Content
from finetune_tf.pages.elements import Html, join, tag
from finetune_tf.pages.numbers import decimal

_MAX_CHARTS = 8


def curves(content: Content) -> Html:
    """Returns a chart for each metric, with training and validation together."""
    content.needs("history")
    words, history = content.words, content.history
    names = sorted(
        {key.removeprefix("val_") for key in history}, key=lambda key: (key != "loss", key)
    )
    charts = []
    for metric in names[:_MAX_CHARTS]:
        series = {
            words(title): [float(value) for value in history[key]]
            for key, title in (
                (metric, "curves.training"),
                (f"val_{metric}", "curves.validation"),
            )
            if key in history
        }
        shown = words.title_of("metric", metric)
        charts.append(line_chart(shown, series, words("curves.epoch")))
    return join([_best_epoch(content), tag("div", *charts, class_="charts")])


def _best_epoch(content: Content) -> Html | None:
    """Says when the validation loss was lowest, if training went on after that."""
    losses = list(content.history.get("val_loss", ()))
    measured = [i for i, loss in enumerate(losses) if math.isfinite(loss)]
    if len(measured) < 2:
        return None
    best = min(measured, key=lambda i: losses[i])
    key = "curves.rises" if best < measured[-1] else "curves.falls"
    values = {"epoch": best + 1, "epochs": measured[-1] + 1, "loss": decimal(float(losses[best]))}
    return tag("p", content.words.html(key, **values))
