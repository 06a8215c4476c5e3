"""Explanations of single predictions as HTML."""

from finetune_tf.errors import FinetuneError
from finetune_tf.pages.content import Content
from finetune_tf.pages.elements import Html, tag


def explained(content: Content, rows: list[int]) -> tuple[list[Html], Html | None]:
    """Explains some rows of the test set.

    Args:
        content: The content of the page.
        rows: The rows.

    Returns:
        The explanation of each row, and a sentence that says why there are none, if so.
    """
    words, model = content.words, content.model
    if not rows:
        return [], None
    if model is None:
        return [], words.html("worst.needs_model")
    from finetune_tf.explanations import explain

    try:
        found = explain(model, content.test[rows])
    except FinetuneError as error:
        message = tag("code", str(error), lang="en")
        return [], words.html("worst.not_explained", message=message)
    return [Html(each.to_html()) for each in found], None
