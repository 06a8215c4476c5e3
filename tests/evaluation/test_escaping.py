"""Names and texts from data are escaped in terminals, HTML, Markdown and figures."""

import json
import warnings

import numpy as np
import pytest

import finetune_tf as ft
from finetune_tf.errors import DataError
from finetune_tf.evaluation import Report
from finetune_tf.messages import printable, say

NAMES = [
    "<script>alert(1)</script>",
    "a|b",
    "[click](http://evil.example)",
    "\x1b[2Jcleared",
    "two\nlines",
    "$\\frac$",
    "`code`",
    "*bold* _soft_",
    "half \ud800",
]


@pytest.fixture(scope="module")
def report():
    scores = {"precision": 1.0, "recall": 0.5, "f1": 0.7, "support": 1}
    places = np.arange(len(NAMES))
    return Report(
        "test\x1b[31m<b>.csv",
        ft.Labels(NAMES),
        {"accuracy": 1.0, "macro_f1": float("nan")},
        {name: scores for name in NAMES},
        np.eye(len(NAMES), dtype=int),
        places,
        places,
    )


def test_a_text_report_is_printable_and_keeps_its_lines(report):
    text = str(report)
    assert all(line.isprintable() for line in text.splitlines())
    assert text.splitlines()[0] == r"test\x1b[31m<b>.csv: 9 texts"
    rows = [line for line in text.splitlines() if line.endswith("  1")]
    assert len(rows) == len(NAMES)
    assert r"two\nlines" in text
    assert r"\x1b[2Jcleared" in text


def test_html(report):
    page = report._repr_html_()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "\x1b" not in page
    assert "<b>" not in page


def test_files(report, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of characters that no font has
        report.save(tmp_path)
    stored = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert stored["labels"] == NAMES
    assert stored["metrics"] == {"accuracy": 1.0, "macro_f1": None}  # JSON knows no NaN
    assert "\x1b" not in (tmp_path / "report.txt").read_text("utf-8")
    assert (tmp_path / "report.png").stat().st_size


def test_where_a_report_cannot_be_written(report, tmp_path):
    (tmp_path / "file").write_text("text")
    with pytest.raises(DataError, match="cannot be written"):
        report.save(tmp_path / "file")


def test_a_model_card_shows_names_as_they_are(tiny_bert, tmp_path):
    model = ft.load(tiny_bert, labels=NAMES)
    model.info.record["data"] = "a|b <img src=x>\n# Heading (2 texts)"
    model.info.record["result"] = {
        "name": "<b>test</b>",
        "texts": 2,
        "metrics": {"f1|x": 0.5},
        "baseline": {"name": "a | b", "metrics": {"f1|x": 0.25}},
        "difference": None,
    }
    card = (model.save_pretrained(tmp_path / "out") / "README.md").read_text("utf-8")
    for raw in ("<script", "<img", "<b>", "\x1b", "\n# Heading", "www."):
        assert raw not in card, raw
    (line,) = [line for line in card.splitlines() if line.startswith("- **labels**")]
    assert r"&lt;script&gt;alert(1)&lt;/script&gt;, a\|b, \[click\](http\://evil.example)" in line
    assert r"\`code\`, \*bold\* \_soft\_" in line
    assert r"two\\nlines" in line
    assert "- **task**: text-classification, single_label_classification" in card
    assert r"| metric | fine-tuned | a \| b |" in card
    assert r"| f1\|x | 0.5000 | 0.2500 |" in card
    assert card.split("---")[1] == (
        "\nlibrary_name: finetune_tf\npipeline_tag: text-classification\n"
    )
    assert ft.load(tmp_path / "out").labels == tuple(NAMES)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("plain é 中 👩\u200d💻\tx\n", "plain é 中 👩\u200d💻\tx\n"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("over\rwritten", r"over\rwritten"),
        ("right \u202e left", r"right \u202e left"),
        ("half \ud800", r"half \ud800"),
        ("no\u00a0break", "no\u00a0break"),
    ],
)
def test_messages_and_errors(given, shown, capsys):
    assert printable(given) == shown
    say(given)
    assert capsys.readouterr().out == f"{shown}\n"
    assert str(DataError(given)) == shown
