"""Labels that look like one class, none, or too many: the same names from every source."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from finetune_tf.base.labels import Labels
from finetune_tf.data import from_arrays, from_csv, from_huggingface, from_jsonl, from_pandas
from finetune_tf.data.sources.label_values import sorted_names
from finetune_tf.errors import DataError, DataTypeError


def texts(count: int) -> list[str]:
    return [f"text {i}" for i in range(count)]


def read(values, **options):
    return from_arrays(texts(len(values)), values, **options)


def refused(values, **options) -> str:
    with pytest.raises((DataError, DataTypeError)) as error:
        read(values, **options)
    return str(error.value)


class Frame:
    """As much of a pandas data frame, or of a `datasets.Dataset`, as is asked for."""

    features = None

    def __init__(self, **columns):
        self.values = columns
        self.columns = self.column_names = list(columns)

    def __getitem__(self, column):
        return self.values[column]


# One class, one name


def test_blanks_around_names_are_left_out_and_that_is_said(capsys):
    examples = read(["pos", "pos ", "\tneg"])
    assert examples.columns["label"] == ["pos", "pos", "neg"]
    assert examples.labels == Labels(["neg", "pos"])
    assert capsys.readouterr().out == (
        "arrays: 2 labels lose the blanks around the name, as in 'pos '.\n"
    )


def test_names_that_differ_by_case_are_warned_of_the_likeliest_first():
    values = ["pos"] * 5 + ["POS"] + ["neg"] * 4 + ["Neg"] * 3
    values += ["a  b", "a b", "a b", "a b", "d", "d", "D", "D"]
    with pytest.warns(UserWarning) as warned:
        examples = read(values)
    assert len(examples.labels) == 8
    assert [str(each.message) for each in warned] == [
        "arrays has labels that differ by upper and lower case or blanks only and count as "
        "classes of their own: 'POS' (1 row) and 'pos' (5 rows), 'a  b' (1 row) and 'a b' (3 "
        "rows), 'D' (2 rows) and 'd' (2 rows) and 1 more. Correct the spelling, or name all "
        "classes with labels=[…] if this is meant."
    ]


def test_names_that_differ_by_marks_that_nobody_sees_are_warned_of():
    with pytest.warns(UserWarning, match=r"'pos\\u200b' \(1 row\) and 'pos' \(2 rows\)"):
        examples = read(["pos", "pos", "neg", "neg", "pos\u200b"])
    assert len(examples.labels) == 3


def test_names_that_are_given_are_meant():
    examples = read(["pos", "Pos", "neg"], labels=["Pos", "pos", "neg"])
    assert examples.labels == Labels(["Pos", "pos", "neg"])


def test_other_ways_to_write_one_name():
    with pytest.warns(UserWarning, match=r"'01' \(1 row\) and '1' \(2 rows\)"):
        read(["1", "01", "2", "1"])
    with pytest.warns(UserWarning, match="'ｎｅｗ'.* and 'new'"):
        read(["new", "ｎｅｗ", "new"])


def test_names_of_one_number_have_the_same_order_in_each_process():
    names = ["1", "01", "001", "2", "10", "010"]
    assert sorted_names(names) == ["001", "01", "1", "2", "010", "10"]


def test_tags_and_lists_are_named_by_the_same_rules(capsys):
    with pytest.warns(UserWarning, match=r"'b-per' \(1 row\) and 'B-PER' \(2 rows\)"):
        from_arrays(tokens=[["a"], ["b", "c"], ["d"]], tags=[["B-PER"], ["b-per", "O"], ["B-PER"]])
    with pytest.warns(UserWarning, match=r"'Toxic' \(1 row\) and 'toxic' \(2 rows\)"):
        read([["toxic"], ["Toxic"], ["toxic ", "rude"]])
    assert "1 label loses the blanks" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("values", "written", "names"),
    [
        ([1.0, 0.0, 1.0], ["1.0", "0.0", "1.0"], ["0", "1"]),
        ([1, 0, 1], ["1", "0", "1.000e+00"], ["0", "1"]),
        ([True, False, True], ["true", "False", "TRUE"], ["False", "True"]),
        (["b", "a", "b"], ["b", " a", "b "], ["a", "b"]),
        ([10, 9, 10], ["10", "9", "10.0"], ["9", "10"]),
        ([1.0, "a", 1.0], ["1.0", "a", "1.0"], ["1.0", "a"]),
    ],
)
def test_the_same_labels_from_every_source(tmp_path, values, written, names):
    rows = "".join(f"text {i},{value}\n" for i, value in enumerate(written))
    (tmp_path / "a.csv").write_text(f"text,label\n{rows}")
    lines = (json.dumps({"text": t, "label": v}) for t, v in zip(texts(3), values, strict=True))
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    columns = Frame(text=texts(3), label=np.array(values, dtype=object))
    sources = [
        from_csv(tmp_path / "a.csv"),
        from_jsonl(tmp_path / "a.jsonl"),
        from_pandas(columns),
        from_huggingface(columns),
        read(values),
        read(np.array(values, dtype=object)),
        read([str(value) for value in values]),
    ]
    for examples in sources:
        assert examples.labels == Labels(names), examples.name
        numbers = [examples.labels.index_of(value) for value in examples.columns["label"]]
        assert numbers == [1, 0, 1] if names != ["1.0", "a"] else [0, 1, 0]


def test_numbers_of_numpy_and_tensorflow():
    for values in (np.array([1, 0], "int8"), np.array([1, 0], "float32"), tf.constant([1, 0])):
        assert read(values).columns["label"] == [1, 0]
    assert read([tf.constant(1), tf.constant(0)]).labels == Labels(["0", "1"])
    assert read(list(np.array([True, False]))).labels == Labels(["False", "True"])


def test_given_names_take_every_spelling():
    labels = Labels(["neg", "pos"])
    assert [labels.index_of(v) for v in ("pos", " pos ", 1, 1.0, "1", "1.0", np.int64(1))] == (
        [1] * 7
    )
    assert labels.index_of("Pos") is None
    assert Labels(["0.0", "1"]).index_of(0) == 0
    assert [labels.index_of(v) for v in (2, -1, None, 0.5, [1], 10**5000)] == [None] * 6


# Nothing, and what is no label


class NAType:
    """Called as pandas calls its missing value."""

    def __repr__(self):
        return "<NA>"


@pytest.mark.parametrize("missing", [None, math.nan, "", " ", "nan", "NaN", "<NA>", NAType()])
@pytest.mark.parametrize("others", [["a", "b"], [1, 0]])
def test_a_missing_label_is_no_class(missing, others):
    assert "Labels of arrays are missing: row 2" in refused([*others, missing])
    assert read([*others, missing], on_invalid="drop").labels == read(others).labels


@pytest.mark.parametrize("ignored", [-100, "-100", -100.0, np.int64(-100)])
def test_what_counts_for_nothing_is_no_class(ignored):
    told = refused([1, 0, ignored])
    assert "arrays has the label -100, which marks a target that counts for nothing" in told
    told = refused([["a"], ["b", ignored], ["a"]])
    assert "arrays has the label -100" in told


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        ({"name": "a"}, 'Name the value inside by its path: label="answer.class".'),
        ([["a"]], "Lists within lists are no labels: give one list of names a row."),
        (b"a", "Decode them first: value.decode('utf-8')."),
        (object(), "Write the name of the class: str(value)."),
        (np.datetime64("2020-01-01"), "Write the name of the class: str(value)."),
        (math.inf, "A number has to be finite"),
        (10**30, "A number has to be finite and is written with up to 18 digits."),
        (1j, "Write the name of the class"),
    ],
)
def test_what_is_no_label(value, advice):
    told = refused(["a", "b", value])
    assert told.startswith(
        "A label of arrays is a text or a number, or a list of such; found row 2"
    )
    assert advice in told


def test_a_list_among_names():
    assert "one a row but for lists in row 2 (['a'])" in refused(["a", "b", ["a"]])


def test_half_a_surrogate_pair_in_a_label():
    assert "labels with half a surrogate pair" in refused(["a", "b\ud83d"])
    assert "row 0" in refused([["b\ud83d"], ["a"]])


def test_what_may_be_missing_is_warned_of():
    with pytest.warns(UserWarning, match=r"has the label 'None' \(2 rows\), which often means"):
        read(["a", "None", "b", "None"])
    assert read(["a", "None"], labels=["None", "a"]).labels == Labels(["None", "a"])


def test_lists_with_one_label_each(capsys):
    texts, classes = [f"text {i}" for i in range(12)], [i % 3 for i in range(12)]
    expected = (
        "arrays: lists mean that a text may have several labels, but each of the 12 rows has "
        "exactly one. If only one can be right, give classes: label.argmax(axis=1) of rows of 0 "
        "and 1, or the name itself instead of a list.\n"
    )
    for labels in (np.eye(3)[classes], [[f"name {i}"] for i in classes]):
        examples = from_arrays(texts, labels)
        assert capsys.readouterr().out == expected
    from_arrays(texts, [[f"name {i}"] for i in classes], labels=examples.labels)
    from_arrays(texts, np.eye(3)[classes], problem_type="multi_label_classification")
    from_arrays(texts, [[], *np.eye(3).astype(int).tolist()] * 3)
    assert capsys.readouterr().out == ""


def test_tags_of_entities_in_another_spelling():
    for names in (["B_PER", "I_PER", "O"], ["b-PER", "i-PER", "o"], ["PER-B", "PER-I", "O"]):
        with pytest.warns(UserWarning) as caught:
            from_arrays(tokens=[["a", "b", "c"]], tags=[names])
        assert str(caught[0].message).startswith(
            "The tags of arrays look like those of entities, but in another spelling, so each word "
            "counts for itself and no entities are formed. Write 'B-PER' for "
        )
    for names in (["B-PER", "I-PER", "O"], ["PER", "PER", "O"], ["NN", "VB-S", "O"]):
        from_arrays(tokens=[["a", "b", "c"]], tags=[names])


def test_tags_that_are_numbers(capsys):
    from_arrays(tokens=[["a", "b"]], tags=[[1, 0]], name="ner.jsonl")
    assert capsys.readouterr().out == (
        "ner.jsonl: tags are numbers, so each word counts for itself and no entities are formed. "
        'Name them in the order of their numbers: labels=["O", "B-PER", "I-PER", …].\n'
    )
    named = from_arrays(tokens=[["a", "b"]], tags=[[1, 0]], labels=["O", "B-PER", "I-PER"])
    assert named.labels == Labels(["O", "B-PER", "I-PER"])
    assert capsys.readouterr().out == ""


def test_tags_that_are_none():
    words = [["a", "b"], ["c"]]

    def message_of(first):
        with pytest.raises((DataError, DataTypeError)) as error:
            from_arrays(tokens=words, tags=[first, ["O"]])
        return str(error.value)

    assert "The tags of arrays are missing in places: row 0 (['O', None])" in message_of(
        ["O", None]
    )
    assert "missing in places" in message_of(["O", math.nan])
    assert "has the label -100" in message_of([0, -100])
    assert "lists of numbers with a fraction: row 0 ([0.1, 0.9])" in message_of([0.1, 0.9])
    assert "Lists within lists" in message_of(["O", ["X"]])
    assert "Name the value inside" in message_of(["O", {"tag": "X"}])
    assert "needs a list of tags, one a word; found row 0 ('OX')" in message_of("OX")


def test_numbers_of_tags_outside_of_the_names_of_the_source():
    for wrong in (-1, 2):
        with pytest.raises(DataError, match=rf"has the tags \['{wrong}'\], which are none"):
            from_huggingface(
                WithNames(tokens=[["a"], ["b"]], tags=[[0], [wrong]]),
                tokens="tokens",
                tags="tags",
            )


class WithNames(Frame):
    features = {"tags": SimpleNamespace(names=("O", "X"))}


# Probabilities, flags


def test_probabilities_are_no_labels():
    for values in ([[0.2, 0.8], [0.9, 0.1]], np.array([[0.2, 0.8], [1.0, 0.0]])):
        told = refused(values)
        assert told.startswith("The labels of arrays are lists of numbers with a fraction: row 0")
        assert "np.argmax(values, axis=1)" in told
    assert "numbers with a fraction" in refused([[0.2, 0.8]], labels=["a", "b"])


def test_lists_that_are_written_as_text(tmp_path):
    (tmp_path / "a.csv").write_text('text,label\na,"[0.2, 0.8]"\nb,"[\'x\']"\n')
    with pytest.raises(DataError) as error:
        from_csv(tmp_path / "a.csv")
    assert str(error.value) == (
        "The labels of a.csv are lists or objects written as text: line 2 ('[0.2, 0.8]'), line 3 "
        "(\"['x']\"); 2 of 2 rows. Several labels per text are given in columns of 0 and 1 "
        "(label=[…] names them), or as lists in JSON Lines."
    )


@pytest.mark.parametrize("wrong", [2, -1, 0.0 + 3])
def test_flags_of_another_value(wrong):
    told = refused([[0, 1, 0], [1, 0, wrong], [0, 0, 1]])
    assert "3 numbers, one for each label, which have to be 0 or 1; found row 1" in told
    assert len(read([[0, 1, 0], [1, 0, wrong], [0, 0, 1]], on_invalid="drop")) == 2


def test_lists_of_class_numbers_are_no_flags():
    assert read([[0, 2], [1, 2]]).labels == Labels(["0", "1", "2"], "multi_label_classification")


def test_flags_of_floats_and_booleans():
    for values in ([[0.0, 1.0], [1.0, 1.0]], [[False, True], [True, True]]):
        assert read(values, labels=["a", "b"]).columns["label"] == [["b"], ["a", "b"]]


# Too many


def test_ids_are_refused():
    assert refused(list(range(1000, 1100))) == (
        "The column 'label' of arrays has 100 different whole numbers (1000 to 1099) in 100 rows, "
        'too many to be classes. Give problem_type="regression" if they are scores, or labels=[…] '
        "with the names of the classes."
    )
    assert read(list(range(100)), problem_type="regression").labels == Labels(["label"])


def test_scores_are_warned_of():
    with pytest.warns(UserWarning, match=r"60 different whole numbers \(0 to 118\) in 600 rows"):
        read([i % 60 * 2 for i in range(600)])
    with pytest.warns(UserWarning, match="101 different whole numbers"):
        read([i % 101 for i in range(500)])


def test_class_numbers_are_fine_and_many_are_said(capsys):
    assert len(read([i % 77 for i in range(1000)]).labels) == 77
    assert len(read([i % 5 + 1 for i in range(20)]).labels) == 5
    assert capsys.readouterr().out == ""
    assert len(read([i % 150 for i in range(1500)]).labels) == 150
    assert capsys.readouterr().out.startswith(
        "The column 'label' of arrays has 150 different whole numbers (0 to 149) in 1,500 rows, "
        "and each counts as a class."
    )
    assert len(read([i % 150 for i in range(150)], labels=150).labels) == 150


def test_names_may_be_many(capsys):
    assert len(read([f"intent {i}" for i in range(77)]).labels) == 77
    assert len(read([f"intent {i % 150}" for i in range(300)]).labels) == 150
    assert capsys.readouterr().out == ""
    with pytest.warns(UserWarning, match="500 different texts in 500 rows.*the right column"):
        read([f"a sentence {i}" for i in range(500)])


def test_one_slip_among_scores():
    values = [i + 0.5 for i in range(9)] + ["n/a"]
    assert "are numbers but for row 9 ('n/a'); 1 of 10 rows" in refused(values)
    assert read(values, on_invalid="drop").labels == Labels(["label"], "regression")


def test_decimal_commas():
    assert "numbers with a decimal comma, such as '3,5'" in refused(["3,5", "4"])


# Labels by hand


@pytest.mark.parametrize("wrong", [0, -3, 10**9, 1.5, True, b"ab", object()])
def test_what_labels_cannot_be(wrong):
    with pytest.raises(
        DataError, match=r"number of labels must be from 1|Labels must be a list of names or"
    ):
        Labels.of(wrong)


@pytest.mark.parametrize("wrong", [None, ["a"], {"a": 1}, b"a", math.nan])
def test_what_a_name_cannot_be(wrong):
    with pytest.raises(DataError, match="The name of a label must be a string or a number, found"):
        Labels([wrong, "b"])


def test_many_labels_are_quick():
    labels = Labels(f"class {i}" for i in range(50_000))
    assert labels.index_of("class 49999") == 49_999
    assert labels.listed().endswith("class 19, … (50,000 in all)")
