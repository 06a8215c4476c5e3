"""The result of `explain`: scores of words or patches, as text, HTML and a picture."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from finetune_tf.base.files import unfinished
from finetune_tf.base.paths import absolute
from finetune_tf.errors import ArgumentError, DataError, ModelError
from finetune_tf.explanations import html_view, pictures, text_view
from finetune_tf.messages import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class WordScore:
    """A word of the text with its score.

    Attributes:
        text: The word, as it is written.
        score: What it contributes to the explained number; below 0 if it speaks against the target.
        column: The column that the text is from, such as "text" or "question".
        start: Its first character in that text.
        end: The position after its last character.
    """

    text: str
    score: float
    column: str
    start: int
    end: int


@dataclass(frozen=True)
class Neighbor:
    """A training example that the model finds similar.

    Attributes:
        row: Its row in the examples, counted from 0.
        similarity: The cosine of the two vectors below the head.
        label: Its label as text; "" without labels.
        text: Its text, or the path of its picture.
        pixels: Its prepared picture (height, width, 3) uint8; None for texts.
    """

    row: int
    similarity: float
    label: str
    text: str
    pixels: np.ndarray | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """Why a model gives an output, as `explain` sees it; print it, or show it in a notebook.

    Attributes:
        method: The name of the method.
        title: The method in words.
        target: What is explained: a label, a label of a word, or an answer.
        prediction: What the model predicts, in words.
        probability: The probability of the prediction, of the most probable label of several; None
            for a regression, and if no label is predicted.
        target_probability: The probability of the target; None for a regression.
        score: The explained number: the log-odds of the target, log p - log(1 - p); for a
            regression the number itself.
        texts: The texts of the example by column, as they are written.
        words: The words that the model read, in their order; empty for a picture.
        patches: The scores (rows, columns) of the patches of a picture; None for a text.
        patch_size: The height and width of these patches in pixels; at the lower and the right
            border they may be smaller. None for a text, and for maps of a convolutional network.
        pixels: The picture as the model got it, (height, width, 3) uint8; None for a text.
        special: The sum of the scores of special tokens, and of others outside of words; None for
            methods that give them none.
        special_share: Their share of the sum of all absolute scores.
        baseline: What words were replaced by; None for methods without a baseline.
        baseline_score: The explained number of the baseline; None for methods without one.
        completeness_error: By how much the sum of all scores misses the difference between `score`
            and `baseline_score`, as a share of it; None for methods whose scores need not add up.
        neighbors: The nearest training examples, for that method.
        is_signed: Whether scores below 0 speak against the target.
        precision: The precision in which the model computes.
        notes: What else one should know about the scores.

    Example:
        >>> explanation = ft.explain(model, "a very good film")
        >>> [word.text for word in explanation.words]
        ['a', 'very', 'good', 'film']
    """

    method: str
    title: str
    target: str
    prediction: str
    probability: float | None
    target_probability: float | None
    score: float
    texts: Mapping[str, str] = field(default_factory=dict)
    words: tuple[WordScore, ...] = ()
    patches: np.ndarray | None = None
    patch_size: tuple[int, int] | None = None
    pixels: np.ndarray | None = None
    special: float | None = None
    special_share: float | None = None
    baseline: str | None = None
    baseline_score: float | None = None
    completeness_error: float | None = None
    neighbors: tuple[Neighbor, ...] = ()
    is_signed: bool = True
    precision: str = "float32"
    notes: tuple[str, ...] = ()

    def strongest(self, n: int = 10) -> list[WordScore]:
        """The words with the largest absolute scores, the largest one first."""
        return sorted(self.words, key=lambda word: -abs(word.score))[:n]

    def __str__(self) -> str:
        """The explanation as plain text."""
        return printable(text_view.as_text(self))

    def __repr__(self) -> str:
        top = ", ".join(f"{word.text!r} {word.score:+.3g}" for word in self.strongest(3))
        return printable(f"Explanation({self.method}, {self.target!r}{top and ': ' + top})")

    def _repr_html_(self) -> str:
        return self.to_html()

    def to_html(self) -> str:
        """The explanation as a part of an HTML page.

        It needs no other files, scripts or styles, and has no ids that could clash with those of
        the page.

        Example:
            >>> ft.explain(model, "a <b>good</b> film").to_html().count("&lt;")
            2
        """
        return html_view.as_html(self)

    def plot(self) -> "Figure":
        """Draws the scores on the picture, or as bars for words; this needs matplotlib.

        Raises:
            MissingExtraError: If matplotlib is not installed.
            ModelError: If there are no scores, as for nearest training examples.
        """
        if self.patches is None and not self.words:
            raise ModelError(
                f"{self.title} gives no scores to draw. Print the explanation, or use to_html()."
            )
        return pictures.figure(self)

    def save(self, path: str | Path) -> Path:
        """Writes the explanation to a file: ".html" for a page, ".txt", or ".png" for a picture.

        Args:
            path: The file, which is replaced if it exists.

        Returns:
            The path.

        Raises:
            ArgumentError: If the suffix is another one, or it is ".png" and there is no picture.
        """
        path = Path(path)
        contents = {".html": self._page, ".txt": lambda: f"{self}\n".encode()}
        if self.patches is not None:
            contents[".png"] = lambda: pictures.png(pictures.overlay(self))
        if path.suffix.lower() not in contents:
            hint = " A text is no picture." if path.suffix.lower() == ".png" else ""
            raise ArgumentError(
                f"Explanations are saved as {', '.join(contents)}, found {path.name!r}.{hint}"
            )
        return _written(path, contents[path.suffix.lower()]())

    def _page(self) -> bytes:
        return html_view.page([self]).encode()


def _written(path: Path, content: bytes) -> Path:
    path = absolute(path, DataError)
    with unfinished(path, DataError) as temporary:
        temporary.write_bytes(content)
    return path


class Explanations(list[Explanation]):
    """Explanations of several inputs: a list that prints and shows all of them."""

    def __str__(self) -> str:
        """All explanations as plain text."""
        return "\n\n".join(map(str, self)) or "No explanations."

    def _repr_html_(self) -> str:
        return self.to_html()

    def to_html(self) -> str:
        """All explanations as a part of an HTML page; see `Explanation.to_html`."""
        return "".join(explanation.to_html() for explanation in self)

    def save(self, path: str | Path) -> Path:
        """Writes all explanations to one page, ".html", or to ".txt".

        Raises:
            ArgumentError: If the suffix is another one.
        """
        path = Path(path)
        if path.suffix.lower() not in (".html", ".txt"):
            raise ArgumentError(
                f"Several explanations are saved as .html or .txt, found {path.name!r}. Save each "
                "one for itself for other formats."
            )
        is_page = path.suffix.lower() == ".html"
        return _written(path, (html_view.page(self) if is_page else f"{self}\n").encode())
