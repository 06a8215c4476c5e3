"""The Python code of each page of docs/ runs from top to bottom.

A new page is found by itself. Its code may use what its reader has anyway: `ft`, `np`, `keras`,
`checkpoint`, the sets `train`, `validation` and `test` of texts with two labels, `model` (a text
classifier made from the checkpoint and compiled), `teacher` (another one), `batches` of the
training set, and a current folder that is empty. Checkpoints of the Hub are replaced by tiny ones
with six blocks.

What else a page needs without showing it stands before the block in a comment, which runs as well:

    <!-- setup
    questions = ft.data.from_arrays(["a good film"], ["good"])
    -->
"""

import re
import textwrap
from itertools import product
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers_models import write_checkpoint

import finetune_tf as ft

DOCS = Path(__file__).resolve().parents[2] / "docs"
CODE = re.compile(
    r"^(?P<indent> *)```python\n(?P<shown>.*?)^ *```$|^<!-- setup\n(?P<setup>.*?)^-->$",
    re.MULTILINE | re.DOTALL,
)
# The guide in both languages and the page for movers run in test_readme.py.
RUN_ELSEWHERE = {"guide.md", "guide.zh-CN.md", "migrating.md"}
PAGES = sorted(
    path.name
    for path in DOCS.glob("*.md")
    if "```python" in path.read_text(encoding="utf-8") and path.name not in RUN_ELSEWHERE
)
SIX_BLOCKS = ("bert-base-uncased", "sentence-transformers/all-MiniLM-L6-v2")
TWO_BLOCKS = ("microsoft/deberta-v3-small",)
# What takes minutes on a page and as little as possible here.
SHORTER = {"trials=30": "trials=2", "minutes=60": "minutes=5", "epochs=20": "epochs=3"}
MOODS = {"positive": ["good", "great", "fine"], "negative": ["bad", "poor", "dull"]}
SPLITS = {"train": slice(0, None, 2), "validation": slice(1, None, 4), "test": slice(3, None, 4)}


def code_of(page: str) -> list[tuple[int, str]]:
    """The pieces of code of a page in their order, each with its line."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return [
        (text[: found.start()].count("\n") + 2, textwrap.dedent(found["shown"] or found["setup"]))
        for found in CODE.finditer(text)
    ]


def reviews(split: str = "train", data_dir: object = None) -> ft.data.Examples:
    """Forty-eight, twenty-four and twenty-four texts, half of them with either label."""
    texts, labels = [], []
    patterns = ("a {} {}", "a very {} {}", "the {} was {}", "not dull and {} {}")
    for pattern, noun, number in product(
        patterns, ("film", "actor", "story", "the film"), range(3)
    ):
        for label, words in MOODS.items():
            word = words[number]
            texts.append(pattern.format(*((noun, word) if "was" in pattern else (word, noun))))
            labels.append(label)
    rows = [row for pair in range(48)[SPLITS[split]] for row in (2 * pair, 2 * pair + 1)]
    return ft.data.from_arrays([texts[i] for i in rows], [labels[i] for i in rows], name=split)


@pytest.fixture(scope="module")
def six_blocks(tmp_path_factory):
    """The folder of a tiny BERT with six blocks, as MiniLM has them."""
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "six-blocks", blocks=6)


@pytest.fixture
def names(six_blocks, monkeypatch, tmp_path):
    """What the reader of a page has."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ft.data, "reviews", reviews)
    keras.utils.set_random_seed(0)
    train = reviews("train")
    model, teacher = (ft.load(six_blocks, labels=train.labels) for _ in range(2))
    for each in (model, teacher):
        each.compile(**ft.presets.cross_entropy(learning_rate=1e-4))
    return {
        "ft": ft,
        "np": np,
        "keras": keras,
        "checkpoint": str(six_blocks),
        "train": train,
        "validation": reviews("validation"),
        "test": reviews("test"),
        "model": model,
        "teacher": teacher,
        "batches": train.batches(model, batch_size=8, shuffle=True),
    }


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:A learning rate of")
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras's save
@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_runs_from_top_to_bottom(page, names, six_blocks, tiny_bert):
    replaced = {f'"{name}"': repr(str(six_blocks)) for name in SIX_BLOCKS}
    replaced |= {f'"{name}"': repr(str(tiny_bert)) for name in TWO_BLOCKS} | SHORTER
    for line, code in code_of(page):
        for old, new in replaced.items():
            code = code.replace(old, new)
        # The line of an error is that of the page.
        exec(compile("\n" * (line - 1) + code, page, "exec"), names)


@pytest.mark.slow
def test_the_code_in_the_docstring_of_the_package_runs(names, six_blocks, tmp_path):
    rows = zip(names["train"].columns["text"], names["train"].columns["label"], strict=True)
    lines = ["text,label", *(f"{text},{label}" for text, label in rows)]
    (tmp_path / "train.csv").write_text("\n".join(lines), encoding="utf-8")
    code = textwrap.dedent(ft.__doc__.partition("Example:\n")[2])

    exec(code.replace('"bert-base-uncased"', repr(str(six_blocks))), names)

    assert (tmp_path / "my-model" / "model.safetensors").is_file()


def test_pages_are_found_with_their_hidden_code():
    assert {"control.md", "index.md", "performance.md"} <= set(PAGES)
    pieces = dict(code_of("control.md"))
    assert len(pieces) >= 28
    assert any("keras_hub_backbone =" in code for code in pieces.values())


def test_reviews_are_different_texts_in_each_split():
    texts = [set(reviews(split).columns["text"]) for split in SPLITS]
    assert [len(each) for each in texts] == [48, 24, 24]
    assert not texts[0] & texts[1] and not texts[0] & texts[2] and not texts[1] & texts[2]
