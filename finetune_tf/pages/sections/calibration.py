"""Whether probabilities are as high as the share of correct predictions."""

from finetune_tf.calibration import Measured, measure
from finetune_tf.pages.charts import reliability_chart, tiles
from finetune_tf.pages.content import Content
from finetune_tf.pages.elements import Html, join, table, tag
from finetune_tf.pages.numbers import decimal, interval


def calibration(content: Content) -> Html | None:
    """Returns calibration error and likelihood with their intervals, and the reliability chart."""
    if not content.has_decisions:
        return None
    words = content.words
    found = content.result(Measured, lambda: measure(content.model, content.test), "model")
    shown = [
        (
            words(f"calibration.{key}"),
            decimal(value.value),
            words.html("interval", low=decimal(value.low), high=decimal(value.high)),
        )
        for key, value in (("ece", found.ece), ("nll", found.nll))
    ]
    bins = found.rows
    chart = reliability_chart(
        words("calibration.chart"),
        [each.confidence for each in bins],
        [each.frequency.value for each in bins],
        [each.size for each in bins],
        words("calibration.confidence"),
        words("calibration.frequency"),
    )
    rows = [
        [
            f"{each.low:.2f} … {each.high:.2f}",
            f"{each.size:,}",
            decimal(each.confidence),
            interval(each.frequency),
        ]
        for each in bins
    ]
    header = [words(f"calibration.{key}") for key in ("bin", "size", "mean", "right")]
    listed = table(header, rows, (0, 1, 2, 3), caption=words("calibration.caption"))
    charts = tag("div", chart, listed, class_="charts")
    return join([content.data_of(found), _sentence(content, found), tiles(shown), charts])


def _sentence(content: Content, found: Measured) -> Html:
    """Says whether the model is too certain, or not certain enough."""
    total = sum(each.size for each in found.rows)
    gap = sum(each.size * (each.confidence - each.frequency.value) for each in found.rows) / total
    key = "over" if gap > 0 else "under"
    if found.ece.low <= 0:
        key = "trusted"
    return tag("p", content.words.html(f"calibration.{key}", gap=decimal(abs(gap))))
