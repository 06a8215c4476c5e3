"""The table of columns: a new column is one row, and everything that reads columns knows it."""

import inspect
import json

import pytest

import finetune_tf as ft
from finetune_tf.cli import options
from finetune_tf.data import Examples, from_arrays, from_csv, from_jsonl, overlap
from finetune_tf.data.checks import check_texts
from finetune_tf.data.columns import COLUMNS, Column, Target, normalized
from finetune_tf.data.copies import contradictions
from finetune_tf.errors import DataError, DataTypeError, UnknownArgumentError

TEXTS = ["a long story", "another one", "A  long story", "a third one"]
SUMMARIES = ["a story", "another", "no story", "the third"]


def check_pictures(values, column, rows):
    """Paths of pictures, in small letters."""
    wrong = [value for value in values if not str(value).endswith(".png")]
    if wrong:
        raise DataError(f"The column {column!r} of {rows.name} has {wrong[0]!r}, not a picture.")
    return [value.lower() for value in values]


@pytest.fixture(autouse=True)
def toy_columns(monkeypatch):
    """Two columns that no task has yet: a text to be written, and pictures instead of texts."""
    summary = Column(
        "summary",
        "summaries",
        check_texts,
        target=Target(lambda value, labels: normalized(value)),
        replaces=("label",),
        synonyms="abstract tldr",
    )
    image = Column(
        "image",
        "paths of pictures",
        check_pictures,
        identity=str.lower,
        replaces=("text", "text_pair"),
        is_option_of_predict=True,
    )
    monkeypatch.setitem(COLUMNS, "summary", summary)
    monkeypatch.setitem(COLUMNS, "image", image)


def of_arrays(folder):
    return from_arrays(TEXTS, summary=SUMMARIES)


def of_json_lines(folder):
    path = folder / "stories.jsonl"
    rows = [{"story": t, "short": {"text": s}} for t, s in zip(TEXTS, SUMMARIES, strict=True)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return from_jsonl(path, text="story", summary="short.text")


def of_csv(folder):
    path = folder / "stories.csv"
    rows = zip(("text", *TEXTS), ("short", *SUMMARIES), strict=True)
    path.write_text("\n".join(map(",".join, rows)))
    return from_csv(path, summary="short")


@pytest.mark.parametrize("source", [of_arrays, of_json_lines, of_csv])
def test_every_source_reads_a_new_column_beside_the_texts(source, tmp_path, capsys):
    examples = source(tmp_path)

    assert examples.columns == {"text": TEXTS, "summary": SUMMARIES}
    assert examples[1:3].columns["summary"] == ["another", "no story"]
    assert "'a story' in " in (said := capsys.readouterr().out) and "'no story' in " in said
    assert contradictions(examples) == [[0, 2]]


def test_targets_that_mean_the_same_agree():
    assert contradictions(from_arrays(["a", "A"], summary=["Short text", "short  TEXT"])) == []


def test_copies_stay_on_one_side_of_a_split():
    examples = from_arrays(TEXTS * 5, summary=SUMMARIES * 5)
    train, held_out = examples.split(0.3)
    assert overlap(train, held_out) == []


def test_a_column_of_inputs_takes_the_place_of_texts_beside_labels():
    examples = from_arrays(image=["A.png", "b.png", "a.png"], label=[0, 1, 1])

    assert examples.columns == {"label": [0, 1, 1], "image": ["a.png", "b.png", "a.png"]}
    assert list(examples.labels) == ["0", "1"]
    assert contradictions(examples) == [[0, 2]]
    assert overlap(examples, from_arrays(image=["B.png"], label=[1], labels=2)) == [0]
    both = from_arrays(image=["a.png"], summary=["a cat"])
    assert list(both.columns) == ["image", "summary"]


def test_a_new_column_is_checked():
    with pytest.raises(DataError, match=r"column 'summary' of toy has empty texts: row 1 \(' '\)"):
        Examples({"text": ["a", "b"], "summary": ["a", " "]}, name="toy")
    with pytest.raises(DataError, match=r"column 'image' of arrays has 'a\.txt', not a picture"):
        from_arrays(image=["a.txt"])
    with pytest.raises(DataTypeError, match="summary= takes a list of summaries, found the single"):
        from_arrays(["a"], summary="a")
    with pytest.raises(DataTypeError, match="from_arrays needs texts"):
        from_arrays(summary=["a"])


def test_a_name_from_elsewhere_is_answered_with_the_name_of_the_column():
    with pytest.raises(UnknownArgumentError, match=r"no argument 'tldr'. Did you mean summary=\?"):
        from_jsonl("stories.jsonl", tldr="short")
    with pytest.raises(UnknownArgumentError, match=r"no argument 'query'. Did you mean question="):
        ft.data.from_tfds("squad", query="question")


def test_the_command_line_has_an_option_for_it():
    @options.reads_data
    def command(path: str, columns: dict) -> tuple:
        return path, columns

    @options.takes_inputs
    def predict(inputs: dict) -> dict:
        return inputs

    named = inspect.signature(command).parameters
    assert {"path", "text", "label", "summary", "image", "on_invalid"} <= set(named)
    (option,) = named["summary"].annotation.__metadata__
    assert option.help == "Column of summaries."
    (option,) = named["tokens"].annotation.__metadata__
    assert option.help == "Column of lists of words, for token-classification."
    given = dict.fromkeys(named) | {"path": "a.csv", "label": ["label"], "summary": "short"}
    assert command(**given) == ("a.csv", {"label": "label", "summary": "short"})

    named = inspect.signature(predict).parameters
    assert list(named) == ["question", "context", "image", "video"]
    given = dict.fromkeys(named) | {"image": ["a.png"]}
    assert predict(**given) == {"image": ["a.png"]}
