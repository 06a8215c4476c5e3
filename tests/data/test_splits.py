"""What a split keeps together, what stays in training, and texts that contradict themselves."""

import re
from collections import Counter

import pytest

from finetune_tf.data import from_arrays, overlap
from finetune_tf.data.copies import contradictions
from finetune_tf.errors import ArgumentError, DataError


def texts(count: int) -> list[str]:
    return [f"text {i}" for i in range(count)]


@pytest.mark.parametrize("seed", range(5))
def test_copies_stay_on_one_side(seed):
    # Every text three times, also in another spelling that counts as the same text.
    copies = [spelled for text in texts(100) for spelled in (text, text.upper(), f" {text} ")]
    examples = from_arrays(copies, [i // 3 % 2 for i in range(300)])
    train, held_out = examples.split(0.2, seed)

    assert overlap(train, held_out) == []
    assert len(train) + len(held_out) == 300
    assert 54 <= len(held_out) <= 60
    assert abs(held_out.columns["label"].count(0) - 30) <= 3


@pytest.mark.parametrize("columns", ["pair", "tokens", "question"])
def test_copies_of_other_columns(columns):
    half = texts(20) * 2
    examples = {
        "pair": lambda: from_arrays(half, text_pair=half),
        "tokens": lambda: from_arrays(tokens=[text.split() for text in half]),
        "question": lambda: from_arrays(question=half, context=half),
    }[columns]()
    train, held_out = examples.split(0.3)
    assert overlap(train, held_out) == []
    assert len(held_out) == 12


@pytest.mark.parametrize("seed", range(20))
def test_every_class_stays_in_training(seed):
    values = ["common"] * 40 + ["rare"] * 2 + ["once", "only"]
    train, held_out = from_arrays(texts(44), values).split(0.5, seed)
    assert set(train.columns["label"]) == set(values)
    assert len(held_out) == 22


@pytest.mark.parametrize("seed", range(20))
def test_every_label_of_several_and_every_tag_stays_in_training(seed):
    several = [["a", "b"], ["a"], ["b", "c"], ["a", "b"], ["d"], ["a"]]
    train, _ = from_arrays(texts(6), several).split(0.5, seed)
    assert {label for row in train.columns["label"] for label in row} == set("abcd")

    tags = [["O"], ["O"], ["X"], ["O"], ["Y"], ["O"]]
    train, _ = from_arrays(tokens=[[text] for text in texts(6)], tags=tags).split(0.5, seed)
    assert {tag for row in train.columns["tags"] for tag in row} == {"O", "X", "Y"}


def test_a_class_of_one_text_that_is_copied_stays_in_training():
    examples = from_arrays([*texts(10), "same", "same", "same"], [0, 1] * 5 + [2] * 3)
    for seed in range(10):
        train, held_out = examples.split(0.4, seed)
        assert Counter(train.columns["label"])[2] == 3
        assert 2 not in held_out.columns["label"]


def test_contradicting_copies_stay_together():
    examples = from_arrays(texts(10) * 2, [0] * 10 + [1] * 10)
    for seed in range(5):
        train, held_out = examples.split(0.3, seed)
        assert overlap(train, held_out) == []
        assert len(held_out) == 6


def test_copies_that_are_more_than_was_asked_for():
    train, held_out = from_arrays(["a", "a", "b", "b"]).split(0.25)
    assert (len(train), len(held_out)) == (2, 2)


def test_nothing_can_be_held_out():
    for examples in (from_arrays(["a", "b"], [0, 1]), from_arrays(["a"] * 4)):
        with pytest.raises(DataError) as error:
            examples.split(0.5)
        assert str(error.value) == (
            "No row of arrays can be held out: each class has one text or image only, or all rows "
            "have the same one. Add examples, or give those to hold out yourself (validation=… in "
            "finetune)."
        )


def test_labels_by_name_and_by_number_are_one_class():
    values = ["neg", 0, "neg", 1, 1, "pos"]
    examples = from_arrays(texts(6), values, labels=["neg", "pos"])
    for seed in range(5):
        _, held_out = examples.split(1 / 3, seed)
        numbers = [examples.labels.index_of(value) for value in held_out.columns["label"]]
        assert sorted(numbers) == [0, 1]


@pytest.mark.parametrize("fraction", ["0.1", None, True, float("nan"), 3])
def test_what_is_no_share(fraction):
    message = f"fraction must be a number > 0 and < 1, found {fraction!r}"
    with pytest.raises(ArgumentError, match=re.escape(message)):
        from_arrays(texts(10)).split(fraction)


def test_a_seed_that_is_none():
    with pytest.raises(ArgumentError, match="seed must be an integer >= 0"):
        from_arrays(texts(10)).split(0.5, seed=-1)


# Contradictions


def test_contradictions_are_said_once_with_an_example(capsys, tmp_path):
    examples = from_arrays(
        ["good film", "Good  film", "dull", "dull", "fine", "good film"],
        ["pos", "neg", "neg", "neg", "pos", "pos"],
        name="reviews",
    )
    assert capsys.readouterr().out == (
        "reviews: 1 text stands there with different labels (3 rows), for example 'good film': "
        "'pos' in row 0, 'neg' in row 1. A model cannot learn both: correct them, or keep "
        "one row of each.\n"
    )
    assert contradictions(examples) == [[0, 1, 5]]
    examples[:2].shuffle()
    assert capsys.readouterr().out == ""


def test_contradictions_of_every_kind_of_target(capsys):
    from_arrays(["a", "a"], [["x", "y"], ["x"]])
    from_arrays(["a", "a"], [1.5, 2.0])
    from_arrays(["a", "a"], text_pair=["b", "b"], label=["x", "y"])
    from_arrays(tokens=[["a"], ["a"]], tags=[["O"], ["X"]])
    from_arrays(question=["a?"] * 2, context=["a b"] * 2, answers=["a", "b"])
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 5
    assert all("1 text stands there with different labels (2 rows)" in line for line in said)


def test_the_same_again_is_no_contradiction(capsys):
    from_arrays(["a", "a", "b"], [["x", "y"], ["x", "y"], ["y"]])
    from_arrays(["a", "a", "b"], ["1", 1, 0], labels=["no", "yes"])
    from_arrays(["a", "a"], text_pair=["b", "c"], label=["x", "y"])
    from_arrays(["a", "a"])
    answers = [["Ada", "Ada Lovelace"], ["Ada"]]  # both accept "Ada"
    from_arrays(question=["Who?"] * 2, context=["Ada Lovelace"] * 2, answers=answers)
    assert capsys.readouterr().out == ""


def test_contradictions_between_two_sets():
    train = from_arrays(["a", "b", "c"], [0, 1, 1], labels=["neg", "pos"])
    test = from_arrays(["A", "b", "d"], ["pos", "pos", "neg"])
    assert contradictions(test, train) == [[0]]
    assert contradictions(test) == []
    assert contradictions(from_arrays(["a"]), train) == []
