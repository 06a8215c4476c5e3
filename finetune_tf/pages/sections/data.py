"""What is suspicious about the data: labels, near duplicates, drift."""

from finetune_tf import diagnosis
from finetune_tf.pages.content import Content
from finetune_tf.pages.elements import Html, join, name, passage, place, table, tag
from finetune_tf.pages.numbers import decimal

_MAX_ROWS = 50
_TEXT = 300  # characters of a text in these tables


def label_errors(content: Content) -> Html | None:
    """Returns the rows whose label is probably wrong, for one label for each example."""
    words = content.words
    if content.report.confusion is None:
        return None

    def compute() -> diagnosis.LabelErrors:
        return diagnosis.label_errors(content.model, content.test)

    found = content.result(diagnosis.LabelErrors, compute, "model")
    likely = [row for row in found.rows if row.is_likely_error]
    shown = (likely or found.rows)[:_MAX_ROWS]
    estimated, probes = found.estimated, found.probe_accuracy
    lines = [
        words.html(
            "label_errors.estimated",
            data=found.data,
            n=f"{estimated.value:,.0f}",
            low=f"{estimated.low:,.0f}",
            high=f"{estimated.high:,.0f}",
            total=f"{len(found.rows):,}",
        ),
        words.html(
            "label_errors.probes",
            value=decimal(probes.value),
            low=decimal(probes.low),
            high=decimal(probes.high),
        ),
    ]
    if found.left_out:
        lines.append(words.html("label_errors.left_out", n=f"{found.left_out:,}"))
    rows = [
        [
            place(row.place),
            passage(row.text, _TEXT),
            name(row.label),
            name(row.suggested),
            decimal(row.self_confidence),
            decimal(row.suggested_probability),
        ]
        for row in shown
    ]
    keys = ("place", "text", "label", "suggested", "own", "other")
    header = [words(f"label_errors.{key}") for key in keys]
    return join([*_paragraphs(lines), table(header, rows, (4, 5)), _more(content, shown, likely)])


def near_duplicates(content: Content) -> Html:
    """Returns pairs of rows that are almost the same."""
    words = content.words

    def compute() -> diagnosis.NearDuplicates:
        return diagnosis.near_duplicates(content.model, content.train, content.test)

    found = content.result(diagnosis.NearDuplicates, compute, "model", "train")
    values = {
        "n": f"{found.affected:,}",
        "total": f"{found.size:,}",
        "data": found.data,
        "similarity": f"{found.similarity:g}",
        "differ": f"{found.contradictory:,}",
    }
    if found.other_data is None:
        lines = [words.html("near_duplicates.within", **values)]
    else:
        lines = [words.html("near_duplicates.between", other=found.other_data, **values)]
    if not found.rows:
        return join(_paragraphs(lines))
    shown = found.rows[:_MAX_ROWS]
    rows = [
        [
            f"{pair.row:,}",
            passage(pair.text, _TEXT),
            f"{pair.other_row:,}",
            passage(pair.other_text, _TEXT),
            decimal(pair.similarity),
            _labels(pair),
        ]
        for pair in shown
    ]
    keys = ("row", "text", "other_row", "other_text", "similarity", "labels")
    header = [words(f"near_duplicates.{key}") for key in keys]
    more = _more(content, shown, found.rows)
    return join([*_paragraphs(lines), table(header, rows, (0, 2, 4)), more])


def drift(content: Content) -> Html:
    """Returns whether a probe tells test examples from training examples, and by which rows."""
    words = content.words

    def compute() -> diagnosis.Drift:
        return diagnosis.drift(content.model, content.train, content.test)

    found = content.result(diagnosis.Drift, compute, "model", "train")
    line = words.html(
        "drift.auc",
        data=found.data,
        other=found.other_data,
        auc=decimal(found.auc.value),
        low=decimal(found.auc.low),
        high=decimal(found.auc.high),
        p=decimal(found.p_value),
    )
    verdict = words.html("drift.clear" if found.is_clear else "drift.unclear")
    lines = _paragraphs([line, verdict])
    if not found.is_clear:
        return join(lines)
    shown = found.rows[:_MAX_ROWS]
    rows = [[place(r.place), passage(r.text, _TEXT), decimal(r.probability)] for r in shown]
    header = [words(f"drift.{key}") for key in ("place", "text", "probability")]
    return join([*lines, table(header, rows, (2,), words("drift.caption"))])


def _labels(pair: diagnosis.DuplicatePair) -> Html:
    if not pair.labels_differ:
        return name(pair.label)
    return join([name(pair.label), " ≠ ", name(pair.other_label)])


def _paragraphs(lines: list[Html]) -> list[Html]:
    return [tag("p", line) for line in lines]


def _more(content: Content, shown: list, found: list) -> Html | None:
    more = len(found) - len(shown)
    if more <= 0:
        return None
    return tag("p", content.words.html("rows.more", n=f"{more:,}"), class_="faint")
