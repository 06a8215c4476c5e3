"""Explanations as text, HTML and figures."""

import dataclasses
import html.parser

import numpy as np
import pytest

import finetune_tf as ft
from finetune_tf.explanations import Explanation, Explanations, Neighbor, WordScore

TEXT = "a <b>good</b> film"
WORDS = (
    WordScore("a", 0.02, "text", 0, 1),
    WordScore("good", 2.0, "text", 5, 9),
    WordScore("film", -1.0, "text", 14, 18),
)
FOUND = Explanation(
    method="integrated-gradients",
    title="Integrated gradients",
    target="pos",
    prediction="pos",
    probability=0.9,
    target_probability=0.9,
    score=2.2,
    texts={"text": TEXT},
    words=WORDS,
    special=0.18,
    special_share=0.05,
    baseline="padding",
    baseline_score=1.0,
    completeness_error=0.0003,
    notes=("A note.",),
)


class Page(html.parser.HTMLParser):
    """The tags of a page, whether they are closed, and its text."""

    def __init__(self, content):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], ""
        self.feed(content)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_text():
    assert str(FOUND).splitlines() == [
        "Integrated gradients for pos: the model predicts pos with probability 0.900",
        "text: a <b>good</b> film",
        "",
        "        +2  ++++++++++++++++  good",
        "        -1  --------          film",
        "     +0.02                    a",
        "",
        "Special tokens: +0.18, 5.0% of all absolute scores.",
        "Completeness error: 0.03% of the difference +1.2 between the explained number, +2.2, and "
        "that of the baseline (padding), +1.",
        "A note.",
    ]
    assert repr(FOUND) == (
        "Explanation(integrated-gradients, 'pos': 'good' +2, 'film' -1, 'a' +0.02)"
    )


def test_another_target_than_the_prediction():
    other = dataclasses.replace(FOUND, target="neg", target_probability=0.1)
    assert str(other).startswith(
        "Integrated gradients for neg, of probability 0.100: the model predicts pos with "
    )


def test_many_words_are_summed_up():
    words = tuple(WordScore(f"w{i}", float(i), "text", i, i + 1) for i in range(15))
    lines = str(dataclasses.replace(FOUND, words=words)).splitlines()
    assert "        +3  3 more words together" in lines


def test_html_is_complete_escaped_and_needs_nothing_else():
    page = Page(FOUND.to_html())
    assert not page.open and "script" not in page.tags and "b" not in page.tags
    assert TEXT in page.text
    names = {name for name, _ in page.attributes}
    assert names <= {"style", "title", "dir"}  # no ids that could clash, no links
    assert FOUND._repr_html_() == FOUND.to_html()


def test_colors_are_not_needed():
    content = FOUND.to_html()
    good, film = (content[: content.index(f">{word}<")].rsplit("<span", 1)[1] for word in
                  ("good", "film"))  # fmt: skip
    assert "solid" in good and 'title="+2"' in good and "0,114,178" in good
    assert "dashed" in film and 'title="-1"' in film and "213,94,0" in film
    assert "speaks for pos" in content and "speaks against pos" in content
    assert "not read by the model" in content  # the tags between the words


def test_control_characters_are_escaped():
    words = (WordScore("\x1b[31m", 1.0, "text", 0, 5),)
    found = dataclasses.replace(FOUND, texts={"text": "\x1b[31m"}, words=words, target="\x1b]0;x")
    assert "\x1b" not in str(found) and "\x1b" not in found.to_html() and "\x1b" not in repr(found)


def test_pages_and_files(tmp_path):
    both = Explanations([FOUND, FOUND])
    path = both.save(tmp_path / "new" / "page.html")
    page = Page(path.read_text(encoding="utf-8"))
    assert page.text.count("Integrated gradients for pos") == 2 and not page.open
    assert FOUND.save(tmp_path / "one.txt").read_text(encoding="utf-8") == f"{FOUND}\n"
    assert str(both).count("good") == 4 and both.to_html() == FOUND.to_html() * 2
    assert str(Explanations()) == "No explanations."
    with pytest.raises(ft.errors.ArgumentError) as caught:
        FOUND.save(tmp_path / "one.png")
    assert str(caught.value) == (
        "Explanations are saved as .html, .txt, found 'one.png'. A text is no picture."
    )
    with pytest.raises(ft.errors.ArgumentError, match="Several explanations are saved as .html or"):
        both.save(tmp_path / "both.png")


def test_neighbors():
    near = (Neighbor(3, 0.91234, "neg", "a <dull> film"), Neighbor(0, 0.5, "", "was"))
    found = dataclasses.replace(
        FOUND, method="nearest", title="Nearest training examples", words=(), neighbors=near,
        special=None, completeness_error=None, baseline=None,
    )  # fmt: skip
    assert "   0.912  neg  a <dull> film  (row 3)\n   0.500  (no label)  was  (row 0)" in str(found)
    assert "a &lt;dull&gt; film" in found.to_html() and not Page(found.to_html()).open
    with pytest.raises(ft.errors.ModelError) as caught:
        found.plot()
    assert str(caught.value) == (
        "Nearest training examples gives no scores to draw. Print the explanation, or use "
        "to_html()."
    )


def test_figures():
    pytest.importorskip("matplotlib")
    figure = FOUND.plot()
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "film", "good"]
    pixels = np.full((8, 8, 3), 200, "uint8")
    scores = np.array([[1.0, -1.0], [0.0, 0.5]])
    picture = dataclasses.replace(FOUND, words=(), texts={}, patches=scores, pixels=pixels)
    assert len(picture.plot().axes) == 2
