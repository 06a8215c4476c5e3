"""The summary: a verdict in one sentence, the main metric with its interval, all metrics."""

from finetune_tf.evaluation.bootstrap import Difference
from finetune_tf.evaluation.evaluators.registry import EVALUATORS
from finetune_tf.pages.charts import interval_bar, tiles
from finetune_tf.pages.content import Content
from finetune_tf.pages.elements import Html, join, name, table, tag
from finetune_tf.pages.numbers import decimal, interval, signed

_MAX_MISSED = 10


def summary(content: Content) -> Html:
    """Returns the section."""
    words, report = content.words, content.report
    parts = [_verdict(content), _tiles(content), _metrics(content)]
    parts += [tag("p", line, class_="warning") for line in _warnings(content)]
    if report.duplicates == 0:
        parts.append(tag("p", words.html("summary.no_duplicates"), class_="faint"))
    for note in report.notes:
        known = f"note.{note}"
        shown = words(known) if words.has(known) else tag("code", note)
        parts.append(tag("p", words.html("summary.note", note=tag("span", shown)), class_="faint"))
    parts.append(tag("p", words.html("summary.interval"), class_="faint"))
    return join(parts)


def verdict_of(content: Content) -> str:
    """Whether the model is "better" or "worse" than the baseline, or neither: a part of a key."""
    difference = content.report.difference
    if difference is None:
        return "alone"
    if not difference.is_clear:
        return "unclear"
    return "better" if (difference.value > 0) != content.lower_is_better else "worse"


def _verdict(content: Content) -> Html:
    report, verdict = content.report, verdict_of(content)
    values = {
        "metric": content.words.named("metric", report.main_metric),
        "value": decimal(content.main_metric.value),
        "low": decimal(content.main_metric.low),
        "high": decimal(content.main_metric.high),
    }
    if report.difference is not None:
        values |= {
            "baseline": report.baseline.name,
            "other": decimal(report.baseline.metrics[report.main_metric]),
            "difference": signed(report.difference.value),
            "low": signed(report.difference.low),
            "high": signed(report.difference.high),
        }
    sentence = content.words.html(f"verdict.{verdict}", **values)
    direction = content.words.html("verdict.lower") if content.lower_is_better else None
    return tag("p", sentence, direction and Html(" "), direction, class_=f"verdict {verdict}")


def _tiles(content: Content) -> Html:
    words, report, value = content.words, content.report, content.main_metric
    shown = [
        (
            words.title_of("metric", report.main_metric),
            decimal(value.value),
            words.html("interval", low=decimal(value.low), high=decimal(value.high)),
        )
    ]
    if report.baseline is not None:
        other = report.baseline.metrics[report.main_metric]
        shown.append((words("summary.baseline"), decimal(other), name(report.baseline.name)))
    if report.difference is not None:
        low, high = signed(report.difference.low), signed(report.difference.high)
        note = words.html("interval", low=low, high=high)
        shown.append((words("summary.difference"), signed(report.difference.value), note))
    size = f"{len(report.targets):,}"
    shown.append((words(f"unit.{report.unit}"), size, name(report.name)))
    return tiles(shown)


def _metrics(content: Content) -> Html:
    words, report = content.words, content.report
    differences = {each.metric: each for each in report.further_differences}
    if report.difference is not None:
        differences[report.main_metric] = report.difference
    header = [words("summary.metric"), words("summary.model")]
    if report.baseline is not None:
        header.append(words.html("summary.baseline_named", name=report.baseline.name))
    if differences:
        header += [words("summary.difference"), ""]
    ends = _ends(differences.values())
    rows = []
    for metric, value in report.metrics.items():
        row = [words.named("metric", metric), decimal(value)]
        if report.baseline is not None:
            other = report.baseline.metrics.get(metric)
            row.append("–" if other is None else decimal(other))
        if differences:
            row += _difference_cells(differences.get(metric), ends)
        rows.append(row)
    return table(header, rows, numeric=(1, 2) if report.baseline is not None else (1,))


def _ends(differences: object) -> tuple[float, float]:
    farthest = max((max(abs(d.low), abs(d.high)) for d in differences), default=1.0)
    return (-1.1 * farthest or -1.0, 1.1 * farthest or 1.0)


def _difference_cells(difference: Difference | None, ends: tuple[float, float]) -> list:
    if difference is None:
        return ["", ""]
    text = interval(difference, signed)
    picture = interval_bar(
        difference.value, difference.low, difference.high, ends, reference=0.0, title=text
    )
    return [text, picture]


def _warnings(content: Content) -> list[Html]:
    words, report = content.words, content.report
    total, unit = f"{len(report.targets):,}", words(f"unit.{EVALUATORS[report.kind].example_unit}")
    found = []
    for key in ("duplicates", "contradictions"):
        if number := getattr(report, key):
            counts = {"n": f"{number:,}", "total": total, "unit": tag("span", unit)}
            found.append(words.html(f"summary.{key}", **counts))
    missed = {
        label: measures["support"]
        for label, measures in report.per_class.items()
        if measures["support"] and not measures["f1"]
    }
    if missed:
        rarest = sorted(missed, key=missed.get)
        listed = join((name(label) for label in rarest[:_MAX_MISSED]), words("comma"))
        key = "summary.missed_more" if len(missed) > _MAX_MISSED else "summary.missed"
        found.append(words.html(key, names=listed, n=len(missed) - _MAX_MISSED))
    return found
