"""Single examples: the highest losses with explanations, wrong pictures, texts side by side."""

from finetune_tf.diagnosis import TopLosses, top_losses
from finetune_tf.diagnosis.results import LossRow
from finetune_tf.evaluation.mistakes import Mistake
from finetune_tf.evaluation.mistakes_shown import picture_tag
from finetune_tf.pages.content import Content
from finetune_tf.pages.elements import Html, join, name, passage, place, table, tag
from finetune_tf.pages.explained import explained
from finetune_tf.pages.numbers import decimal

_MAX_ROWS = 50


def worst(content: Content) -> Html | None:
    """Returns the rows with the highest losses; the first ones with explanations."""
    if not content.has_decisions:
        return None
    words = content.words
    found = content.result(
        TopLosses, lambda: top_losses(content.model, content.test, _MAX_ROWS), "model"
    )
    rows = found.rows[:_MAX_ROWS]
    lead = words.html(
        "worst.lead",
        n=len(rows),
        total=f"{found.size:,}",
        share=f"{found.share_of_loss:.0%}",
        mean=decimal(found.mean_loss),
    )
    parts = [content.data_of(found), tag("p", lead)]
    explained_rows, reason = explained(content, rows[: content.explanations], found.size)
    parts += [
        _card(content, row, explanation)
        for row, explanation in zip(rows, explained_rows, strict=False)
    ]
    if reason is not None:
        parts.append(tag("p", reason, class_="faint"))
    if others := rows[len(explained_rows) :]:
        parts.append(_table(content, others))
    return join(parts)


def _card(content: Content, row: LossRow, explanation: Html) -> Html:
    words = content.words
    facts = words.html(
        "worst.facts",
        place=row.place,
        label=row.label,
        predicted=row.predicted,
        probability=decimal(row.probability),
        loss=decimal(row.loss),
    )
    return tag("div", tag("p", facts), explanation, class_="example")


def _table(content: Content, rows: list[LossRow]) -> Html:
    keys = ("place", "text", "label", "predicted", "probability", "loss")
    cells = [
        [
            place(row.place),
            passage(row.text),
            name(row.label),
            name(row.predicted),
            decimal(row.probability),
            decimal(row.loss),
        ]
        for row in rows
    ]
    return table([content.words(f"worst.{key}") for key in keys], cells, numeric=(4, 5))


def pictures(content: Content) -> Html | None:
    """Returns the most confident wrong predictions of images as thumbnails."""
    if not content.report.mistakes:
        return None
    figures = [_picture(content, mistake) for mistake in content.report.mistakes]
    lead = tag("p", content.words.html("pictures.lead", n=len(figures)))
    return join([lead, tag("div", *figures, class_="pictures")])


def _picture(content: Content, mistake: Mistake) -> Html:
    facts = content.words.html(
        "pictures.facts",
        label=mistake.target,
        predicted=mistake.prediction,
        score=f"{mistake.score:.0%}",
    )
    if mistake.pixels is None:
        shown = tag("p", content.words.html("pictures.unreadable", file=mistake.short_name))
    else:
        shown = Html(picture_tag(mistake))
    text = passage(mistake.text, 200) if mistake.text else None
    return tag("figure", shown, tag("figcaption", name(mistake.short_name), text, facts))


def side_by_side(content: Content) -> Html | None:
    """Returns a few sources with references and generated texts."""
    examples = content.report.examples[:_MAX_ROWS]
    if not examples:
        return None
    words = content.words
    header = [words.title_of("column", key) for key in examples[0]]
    rows = [[passage(text) for text in each.values()] for each in examples]
    return table(header, rows, caption=words.html("side_by_side.caption", n=len(rows)))
