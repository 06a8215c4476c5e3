"""An explanation as plain text for a terminal."""

from typing import TYPE_CHECKING

import numpy as np

from finetune_tf.messages import one_line

if TYPE_CHECKING:
    from finetune_tf.explanations.explanation import Explanation, WordScore

_LISTED = 12  # words; the others are summed up in a line
_BAR = 16  # characters of the longest bar
_LONGEST = 400  # characters of a text
_SHADES = " ░▒▓█"


def as_text(explanation: "Explanation") -> str:
    """Returns the explanation as lines of text."""
    lines = [headline(explanation)]
    for column, text in explanation.texts.items():
        lines.append(f"{column}: {_shortened(text)}")
    if explanation.words:
        lines += ["", *_word_lines(explanation)]
    if explanation.patches is not None:
        lines += ["", *_patch_lines(explanation)]
    if explanation.neighbors:
        lines += ["", *_neighbor_lines(explanation)]
    return "\n".join([*lines, "", *remarks(explanation)])


def headline(explanation: "Explanation") -> str:
    """Returns what is explained and what the model predicts, in a line."""
    predicted = f"the model predicts {explanation.prediction}"
    if explanation.probability is not None:
        predicted += f" with probability {explanation.probability:.3f}"
    if explanation.method == "nearest":
        return f"{explanation.title}: {predicted}"
    target = f"{explanation.title} for {explanation.target}"
    if explanation.target_probability is not None and explanation.target != explanation.prediction:
        target += f", of probability {explanation.target_probability:.3f}"
    return f"{target}: {predicted}"


def remarks(explanation: "Explanation") -> list[str]:
    """Returns what one should know about the scores, one sentence a line."""
    lines = []
    if explanation.special is not None:
        where = "Special tokens" if explanation.words else "Tokens outside of the picture"
        lines.append(
            f"{where}: {explanation.special:+.3g}, {explanation.special_share:.1%} of all absolute "
            "scores."
        )
    if explanation.completeness_error is not None:
        difference = explanation.score - explanation.baseline_score
        lines.append(
            f"Completeness error: {explanation.completeness_error:.2%} of the difference "
            f"{difference:+.3g} between the explained number, {explanation.score:+.3g}, and that "
            f"of the baseline ({explanation.baseline}), {explanation.baseline_score:+.3g}."
        )
    elif explanation.baseline is not None:
        lines.append(f"What is left out is replaced by the baseline ({explanation.baseline}).")
    return lines + list(explanation.notes)


def _word_lines(explanation: "Explanation") -> list[str]:
    words = explanation.strongest(_LISTED)
    largest = max((abs(word.score) for word in words), default=0.0) or 1.0
    several = len({word.column for word in explanation.words}) > 1
    lines = [_word_line(word, largest, several) for word in words]
    if len(explanation.words) > len(words):
        rest = sum(word.score for word in explanation.words) - sum(word.score for word in words)
        lines.append(f"{rest:+10.3g}  {len(explanation.words) - len(words):,} more words together")
    return lines


def _word_line(word: "WordScore", largest: float, several: bool) -> str:
    bar = ("+" if word.score >= 0 else "-") * round(_BAR * abs(word.score) / largest)
    column = f"  ({word.column})" if several else ""
    return f"{word.score:+10.3g}  {bar:<{_BAR}}  {one_line(word.text)}{column}"


def _patch_lines(explanation: "Explanation") -> list[str]:
    scores = explanation.patches
    rows, columns = scores.shape
    largest = np.abs(scores).max() or 1.0
    lines = [f"A picture of {rows} x {columns} patches, scores up to {largest:.3g}:"]
    for row in scores:
        lines.append("  " + "".join(_cell(score / largest) for score in row))
    if explanation.is_signed:
        lines.append("  (█ speaks for the target, -- = ## against it)")
    return lines


def _cell(share: float) -> str:
    level = round(abs(share) * (len(_SHADES) - 1))
    shades = _SHADES if share >= 0 else " -=##"
    return shades[level] * 2


def _neighbor_lines(explanation: "Explanation") -> list[str]:
    return [
        f"{neighbor.similarity:8.3f}  {one_line(neighbor.label) or '(no label)'}  "
        f"{_shortened(neighbor.text, 100)}  (row {neighbor.row})"
        for neighbor in explanation.neighbors
    ]


def _shortened(text: str, length: int = _LONGEST) -> str:
    text = one_line(text)
    return text if len(text) <= length else f"{text[: length - 1]}…"
