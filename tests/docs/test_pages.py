"""The Python code of each page of docs/ runs from top to bottom.

A new page is found by itself. Its code may use what its reader has anyway: `ft`, `np`, `keras`,
`checkpoint`, the sets `train`, `validation` and `test` of texts with two labels (also in the file
labelled.csv), `examples` of many classes and `a_few_examples` of them, `model` (a text classifier
made from the checkpoint and compiled), `teacher` (another one), `batches` of the training set,
`texts` without labels, `sources` (one for each row of the test), and a current folder that is empty
otherwise. Checkpoints of the Hub are replaced by tiny ones.

What else a page needs without showing it stands before the block in a comment, which runs as well:

    <!-- setup
    questions = ft.data.from_arrays(["a good film"], ["good"])
    -->
"""

import re
import textwrap
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
SHORTER = {
    "trials=30": "trials=2",
    "minutes=60": "minutes=5",
    "epochs=20": "epochs=3",
    "splits=10": "splits=2",
    "shots=(8, 16, 32, 64)": "shots=(2, 4)",
    "episodes=500": "episodes=5",
    "ways=20": "ways=6",
}
MOODS = {"positive": ["good", "great", "fine"], "negative": ["bad", "poor", "dull"]}
CLAUSES = ("a very {1} {0}", "a {1} {0}", "the {0} was {1}", "not long and a {1} {0}")
NOUNS = ("film", "actor", "story", "short film")
SPLITS = {"train": 48, "validation": 128, "test": 48}  # 128: what a calibration needs


def code_of(page: str) -> list[tuple[int, str]]:
    """The pieces of code of a page in their order, each with its line."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return [
        (text[: found.start()].count("\n") + 2, textwrap.dedent(found["shown"] or found["setup"]))
        for found in CODE.finditer(text)
    ]


def reviews(split: str = "train", data_dir: object = None) -> ft.data.Examples:
    """Different short texts in each split, every other of them with the other label."""
    rows = [row for row in range(sum(SPLITS.values())) if _split_of(row) == split]
    labels = [list(MOODS)[row % 2] for row in rows]
    texts = [_text(row, MOODS[label]) for row, label in zip(rows, labels, strict=True)]
    return ft.data.from_arrays(texts, labels, name=split)


def _split_of(row: int) -> str:
    ends = np.cumsum(list(SPLITS.values()))
    return list(SPLITS)[int(np.searchsorted(ends, row, side="right"))]


def _text(row: int, words: list[str]) -> str:
    """Two clauses with one of three words each; 144 different texts for each label."""
    pair, place = divmod(row // 2, len(CLAUSES) * len(NOUNS))
    clause, noun = divmod(place, len(NOUNS))
    word, other = divmod(pair, len(words))
    begin = CLAUSES[clause].format(NOUNS[noun], words[word])
    return f"{begin} and the {NOUNS[(noun + other) % len(NOUNS)]} was {words[other]}"


def many_classes(classes: int = 24, rows: int = 16) -> ft.data.Examples:
    """Texts of so many classes that some can be left for tests of new classes."""
    texts = [_text(row % 288, list(MOODS.values())[row % 2]) for row in range(classes * rows)]
    return ft.data.from_arrays(texts, [f"class {i % classes}" for i in range(len(texts))])


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
    test, examples = reviews("test"), many_classes()
    rows = zip(train.columns["text"], train.columns["label"], strict=True)
    lines = ["text,label", *(f"{text},{label}" for text, label in rows)]
    Path("labelled.csv").write_text("\n".join(lines), encoding="utf-8")
    return {
        "ft": ft,
        "np": np,
        "keras": keras,
        "checkpoint": str(six_blocks),
        "train": train,
        "validation": reviews("validation"),
        "test": test,
        "texts": test.columns["text"][:4],
        "sources": ["web" if row % 3 else "letter" for row in range(len(test))],
        "examples": examples,
        "a_few_examples": examples[[row for row in range(len(examples)) if row % 24 < 3]],
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
    Path("train.csv").write_bytes(Path("labelled.csv").read_bytes())
    code = textwrap.dedent(ft.__doc__.partition("Example:\n")[2])

    exec(code.replace('"bert-base-uncased"', repr(str(six_blocks))), names)

    assert (tmp_path / "my-model" / "model.safetensors").is_file()


def test_pages_are_found_with_their_hidden_code():
    assert {"control.md", "index.md", "performance.md"} <= set(PAGES)
    pieces = dict(code_of("control.md"))
    assert len(pieces) >= 28
    assert any("keras_hub_backbone =" in code for code in pieces.values())


def test_texts_are_different_and_both_labels_are_as_frequent():
    texts = [text for split in SPLITS for text in reviews(split).columns["text"]]
    assert len(texts) == len(set(texts)) == sum(SPLITS.values())
    assert all(
        reviews(split).columns["label"].count("positive") == n / 2 for split, n in SPLITS.items()
    )
    assert len(set(many_classes().columns["text"])) == 2 * 144  # all that there are
