"""The main metric on parts of the test set."""

import numpy as np

from finetune_tf.diagnosis import SliceRow, Slices
from finetune_tf.diagnosis import slices as compute
from finetune_tf.pages.charts import interval_bar
from finetune_tf.pages.content import Content
from finetune_tf.pages.elements import Html, join, name, table, tag
from finetune_tf.pages.numbers import decimal, interval, signed

_MAX_ROWS = 50


def slices(content: Content) -> Html:
    """Returns the slices with their intervals, worst first."""
    words = content.words
    found = content.result(Slices, lambda: compute(content.model, content.test), "model")
    overall = found.overall
    own = content.main_metric
    is_same = found.metric == content.report.main_metric and np.isclose(own.value, overall.value)
    if is_same and found.size == len(content.report.targets):
        overall = own  # one interval for one number
    clear = sum(row.is_clear for row in found.rows)
    rows = found.rows[:_MAX_ROWS]
    ends = (
        min([row.metric.low for row in rows] + [overall.low]),
        max([row.metric.high for row in rows] + [overall.high]),
    )
    cells = [
        [
            words(f"by.{row.by}") if words.has(f"by.{row.by}") else name(row.by),
            _value(content, row),
            f"{row.size:,}",
            interval(row.metric),
            interval_bar(
                row.metric.value,
                row.metric.low,
                row.metric.high,
                ends,
                reference=overall.value,
                title=interval(row.metric),
            ),
            signed(row.difference.value),
            decimal(row.p_value),
            words("yes" if row.is_clear else "no"),
        ]
        for row in rows
    ]
    metric = words.named("metric", found.metric)
    header = [words("slices.by"), words("slices.value"), words("slices.size"), metric, ""]
    header += [words(f"slices.{key}") for key in ("difference", "p", "clear")]
    whole = words.html(
        "slices.overall",
        metric=metric,
        value=decimal(overall.value),
        low=decimal(overall.low),
        high=decimal(overall.high),
    )
    lines = [whole, words.html("slices.clear_count", n=clear, total=len(found.rows))]
    # Words are masked at random, so that two measurements of one model differ.
    if content.has_decisions and Slices not in content.results and not is_same:
        reported = decimal(own.value)
        lines.insert(0, words.html("slices.other_model", metric=metric, reported=reported))
    if found.too_small:
        lines.append(words.html("slices.too_small", n=found.too_small))
    if found.without_metric:
        n = found.without_metric
        lines.append(words.html("slices.without_metric", n=n, metric=metric))
    if len(found.rows) > len(rows):
        lines.append(words.html("rows.more", n=f"{len(found.rows) - len(rows):,}"))
    caption = words.html("slices.caption")
    return join(
        [
            content.data_of(found),
            *(tag("p", line) for line in lines),
            table(header, cells, numeric=(2, 3, 5, 6), caption=caption) if cells else None,
        ]
    )


def _value(content: Content, row: SliceRow) -> Html:
    """The name of a class, or a range of numbers in the language of the page."""
    is_class = row.value in (content.report.labels or ())
    return name(row.value if is_class else content.words.range_of(row.value))
