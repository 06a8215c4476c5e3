"""Rows that cannot be used: told as a person counts them, or left out and counted."""

import json

import numpy as np
import pytest

import finetune_tf as ft
from finetune_tf.base.labels import Labels
from finetune_tf.data import Examples, from_arrays, from_csv, from_jsonl, from_pandas
from finetune_tf.errors import ArgumentError, DataError, DataTypeError


@pytest.fixture
def write(tmp_path):
    def write(name: str, content: str):
        path = tmp_path / name
        path.write_text(content, encoding="utf-8")
        return path

    return write


def message(read, *args, **options) -> str:
    with pytest.raises((DataError, DataTypeError)) as error:
        read(*args, **options)
    return str(error.value)


DROP = 'With on_invalid="drop" such rows are left out.'


def test_lines_of_csv_are_those_of_an_editor(write):
    path = write("a.csv", 'text,label\n"two\nlines",pos\n\nbad,\n"three\n\nlines", \nfine,neg\n')
    assert message(from_csv, path) == (
        "Labels of a.csv are missing: line 5 (''), line 6 (' '); 2 of 4 rows. Remove these rows, "
        f"or read the data with label=None to predict only. {DROP}"
    )


def test_a_header_of_several_lines(write):
    path = write("a.csv", '"a\nnote",text,label\n1,good,pos\n2,,neg\n')
    assert "has empty texts: line 4 (''); 1 of 2 rows." in message(from_csv, path)


def test_lines_of_json_and_items_of_an_array(write):
    rows = [{"text": "a", "label": 1}, {"text": "b"}, {"text": "c", "label": 0}]
    path = write("a.jsonl", "\n\n".join(map(json.dumps, rows)))
    assert "are missing: line 3 (None); 1 of 3 rows." in message(from_jsonl, path)
    path = write("a.json", json.dumps(rows))
    assert "are missing: item 2 (None); 1 of 3 rows." in message(from_jsonl, path)


def test_rows_of_arrays_are_counted_from_0():
    told = message(from_arrays, ["a", "b"], ["x", None])
    assert "are missing: row 1 (None); 1 of 2 rows, counted from 0." in told


def test_places_go_with_the_rows(write):
    path = write("a.csv", "text,label\na,x\nb,y\nc,x\nd,y\ne,odd\n")
    examples = from_csv(path).shuffle(1)
    labels = Labels(["x", "y"])
    for part in (examples, examples[::-1], examples[np.array(examples.columns["label"]) == "odd"]):
        with pytest.raises(DataError, match=r"found line 6 \('odd'\); 1 of"):
            Examples(part.columns, labels, part.name, part.places)


def test_rows_are_left_out_counted_and_said_in_one_line(write, capsys):
    path = write("a.csv", 'text,label\na,x\nb\n,y\n"c\nd",y\ne,\nf,\ng,x,1\nh,nan\n')
    examples = from_csv(path, on_invalid="drop")

    assert examples.columns == {"text": ["a", "c\nd"], "label": ["x", "y"]}
    assert capsys.readouterr().out == (
        "a.csv: 6 of 8 rows are left out: 2 with another number of values than columns (line 3, "
        "line 9); 1 with an empty text (line 4); 3 without a label (line 7, line 8, line 10).\n"
    )
    assert [examples.places.name(row) for row in range(2)] == ["line 2", "line 5"]


def test_lines_that_are_no_json(write, capsys):
    path = write("a.jsonl", '{"text": "a", "label": 1}\n{"te\n[1]\n{"text": "b", "label": 0}\n')
    assert "line 2 is not JSON" in message(from_jsonl, path)
    assert len(from_jsonl(path, on_invalid="drop")) == 2
    assert capsys.readouterr().out == (
        "a.jsonl: 2 of 4 rows are left out: 2 without a JSON object (line 2, line 3).\n"
    )


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"text": ["a", "b", 7], "label": [0, 1, 0]}, "with something else than a text"),
        ({"text": ["a", "b", "\ud83d"], "label": [0, 1, 0]}, "with half a surrogate pair"),
        ({"text": ["a", "b", "c"], "label": [0, 1, {}]}, "with something else than a label"),
        ({"text": ["a", "b", "c"], "label": [0.5, 1, "inf"]}, "with a label that is no number"),
        ({"text": ["a", "b", "c"], "label": [["x"], ["y"], "z"]}, "without a list of labels"),
        ({"tokens": [["a"], ["b"], ["c", ""]]}, "with an empty word"),
        ({"tokens": [["a"], ["b"], "c"]}, "without a list of words"),
        ({"tokens": [["a"], ["\udc00"]]}, "with half a surrogate pair"),
        ({"tokens": [["a"], ["b"]], "tags": [["O"], ["O", "X"]]}, "with another number of tags"),
        ({"tokens": [["a"], ["b"]], "tags": [["O"], None]}, "without a list of tags"),
        ({"tokens": [["a"], ["b"]], "tags": [["O"], [None]]}, "with missing tags"),
        ({"question": ["q", ""], "context": ["c", "c"]}, "with an empty text"),
        (
            {"question": ["q"] * 2, "context": ["c"] * 2, "answers": ["c", "d"]},
            "with an answer that does not occur in its context",
        ),
        (
            {"question": ["q"] * 2, "context": ["c"] * 2, "answers": ["c", 5]},
            "without answers in a known form",
        ),
        (
            {"question": ["q"] * 2, "context": ["c"] * 2, "answers": ["c", ["c", ""]]},
            "with answers that do not fit their starts",
        ),
    ],
)
def test_whatever_is_wrong_with_a_row(columns, reason, capsys):
    rows = len(next(iter(columns.values())))
    options = {"labels": ["O", "X"]} if "tags" in columns else {}
    assert message(from_arrays, **columns, **options).endswith(DROP)
    assert len(from_arrays(**columns, **options, on_invalid="drop")) == rows - 1
    said = capsys.readouterr().out
    assert said.startswith(f"arrays: 1 of {rows} rows are left out: 1 {reason}")
    assert said.endswith(f"(row {rows - 1}).\n")


def test_unknown_labels_of_given_ones(capsys):
    given = {"labels": ["neg", "pos"]}
    told = message(from_arrays, ["a", "b"], ["pos", "odd"], **given)
    assert "must be one of these labels: neg, pos; found row 1 ('odd')" in told
    kept = from_arrays(["a", "b"], ["pos", "odd"], **given, on_invalid="drop")
    assert kept.labels == Labels(["neg", "pos"])
    assert "1 with an unknown label (row 1)" in capsys.readouterr().out


def test_what_is_wrong_with_all_rows_is_an_error():
    assert "has empty texts: row 0 (''), row 1 ('')" in message(
        from_arrays, ["", ""], [0, 1], on_invalid="drop"
    )
    assert "one class only, 'x'" in message(from_arrays, ["a", "b"], ["x", None], on_invalid="drop")


def test_a_warning_about_names_is_of_the_rows_that_remain():
    with pytest.warns(UserWarning, match=r"'B' \(1 row\) and 'b' \(2 rows\)") as warned:
        from_arrays(["a", "", "c", "d", 5], ["b", "b", "B", "b", "b"], on_invalid="drop")
    assert len(warned) == 1


def test_a_frame_without_names_of_columns():
    class Frame:
        columns = (0, 1)

        def __getitem__(self, column):
            return np.array([["a", "b", ""], ["x", "y", "x"]], dtype=object)[column]

    examples = from_pandas(Frame(), text="0", label="1", on_invalid="drop")
    assert examples.columns == {"text": ["a", "b"], "label": ["x", "y"]}


def test_on_invalid_is_one_of_two():
    with pytest.raises(ArgumentError) as error:
        from_arrays(["a"], on_invalid="skip")
    assert str(error.value) == "on_invalid is 'raise' or 'drop', found 'skip'."


def test_the_rows_of_an_error_can_be_read():
    with pytest.raises(DataError) as error:
        from_arrays(["a", "", "c", ""])
    assert error.value.rows == [1, 3]


def test_a_label_that_the_model_does_not_know(write, tiny_bert):
    model = ft.load(tiny_bert, labels=["neg", "pos"])
    test = from_csv(write("test.csv", "text,label\na film,pos\ngood,odd\nbad,Neg\nfine,odd\n"))
    for use in (test.batches, lambda model: ft.evaluate(model, test)):
        with pytest.raises(DataError) as error:
            use(model)
        assert str(error.value).startswith(
            "Line 3 of test.csv has the label 'odd', which is none of the model's 2 labels: neg, "
            "pos. So it is in line 3 ('odd'), line 4 ('Neg'), line 5 ('odd'); 3 of 4 rows. "
        )
        assert "'Neg' differs from 'neg' only by case or spaces" in str(error.value)
        assert "labels=train.labels" not in str(error.value)
    numbers = from_arrays(["a", "b"], [1, 2])
    with pytest.raises(DataError, match="Numeric labels must be from 0 to 1: pass the names"):
        numbers.batches(model)
