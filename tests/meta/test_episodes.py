"""Episodes of any data: disjoint, reproducible, and refused where classes or rows are missing."""

import itertools

import numpy as np
import pytest
from helpers_meta import CLASSES, ROWS, points, sentences

import finetune_tf as ft
from finetune_tf.errors import ArgumentError, DataError, DataTypeError


@pytest.mark.parametrize("data", [sentences(), points()], ids=["texts", "arrays"])
def test_support_and_query_are_disjoint_and_ordered_by_class(data):
    classes = np.array(data.columns["label"] if isinstance(data, ft.data.Examples) else data[1])
    for episode in itertools.islice(ft.meta.episodes(data, ways=3, shots=2, queries=4), 20):
        assert len(set(episode.classes)) == 3
        assert len({*episode.support_rows, *episode.query_rows}) == 3 * (2 + 4)
        assert episode.support_classes.tolist() == [0, 0, 1, 1, 2, 2]
        for rows, numbers in (
            (episode.support_rows, episode.support_classes),
            (episode.query_rows, episode.query_classes),
        ):
            names = [episode.classes[number] for number in numbers]
            assert [str(name) for name in classes[rows]] == names


def test_an_episode_is_the_same_whichever_were_drawn_before():
    drawn = ft.meta.episodes(points(), ways=2, shots=1, queries=2, seed=4)
    again = ft.meta.episodes(points(), ways=2, shots=1, queries=2, seed=4)
    other = ft.meta.episodes(points(), ways=2, shots=1, queries=2, seed=5)
    third = list(itertools.islice(drawn, 4))[3]
    assert third.query_rows.tolist() == again[3].query_rows.tolist()
    assert any(drawn[i].query_rows.tolist() != other[i].query_rows.tolist() for i in range(3))


def test_support_and_query_are_data_of_the_same_kind():
    episode = ft.meta.episodes(sentences(), ways=2, shots=1, queries=3)[0]
    assert isinstance(episode.support, ft.data.Examples)
    assert episode.query.columns["label"] == [n for n in episode.classes for _ in range(3)]
    inputs, classes = ft.meta.episodes(points(), ways=2, shots=1, queries=3)[0].query
    assert inputs.shape == (6, 5) and len(set(classes)) == 2


def test_a_query_is_no_copy_of_a_support_row(capsys):
    """Otherwise, points without any classes could be told apart."""
    inputs = np.random.default_rng(0).normal(size=(6, 5)).astype("float32")
    data = inputs.repeat(4, axis=0), np.repeat([0, 1], 12)
    texts = ft.data.from_arrays([f"text {row // 4}" for row in range(24)], data[1].tolist())
    for each, name in ((data, "the arrays"), (texts, "arrays")):
        episode = ft.meta.episodes(each, ways=2, shots=1, queries=2)[0]
        rows = [*episode.support_rows, *episode.query_rows]
        assert sorted(row // 4 for row in rows) == list(range(6))
        assert f"18 of 24 rows of {name} are copies of others" in capsys.readouterr().out
        with pytest.raises(DataError, match="Each class needs 4 different rows for 1 shots and 3"):
            ft.meta.episodes(each, ways=2, shots=1, queries=3)


def test_pairs_and_images():
    pairs = ft.data.from_arrays(["a"] * 8, [0, 1, 2, 3] * 2, text_pair=list("bcdefghi"))
    assert "text_pair" in ft.meta.episodes(pairs, 4, 1, 1)[0].support.columns
    images = list(np.random.default_rng(0).integers(0, 256, (8, 4, 4, 3)).astype("uint8"))
    photographs = ft.data.Examples(
        {"image": images, "label": ["cat", "dog"] * 4}, ft.Labels(["cat", "dog"])
    )
    assert len(ft.meta.episodes(photographs, 2, 1, 2)[0].query) == 4


def test_classes_are_split():
    train, test = ft.meta.split_classes(sentences(), test=0.34, seed=1)
    assert len(train.labels) == 4 and len(test.labels) == 2
    assert set(train.labels).isdisjoint(test.labels)
    assert len(train) == 4 * ROWS and set(test.columns["label"]) == set(test.labels)
    (_, train_classes), (_, test_classes) = ft.meta.split_classes(points(), test=0.5)
    assert set(train_classes).isdisjoint(test_classes)
    assert len(set(train_classes)) == len(set(test_classes)) == CLASSES // 2


def test_class_numbers_are_split_by_name():
    labels = ft.Labels(["red", "green", "blue", "pink"])
    examples = ft.data.Examples({"text": list("abcdefgh"), "label": [0, 1, 2, 3] * 2}, labels)
    train, test = ft.meta.split_classes(examples, test=0.5, seed=0)
    for part in (train, test):
        for row in range(len(part)):
            letter, name = part.columns["text"][row], part.columns["label"][row]
            assert labels.index(name) == "abcdefgh".index(letter) % 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shots": 0}, "shots must be an integer >= 1, found 0."),
        ({"queries": 0}, "queries must be an integer >= 1, found 0."),
        ({"ways": 1}, "ways must be an integer >= 2, found 1."),
        ({"seed": 0.5}, "seed must be an integer >= 0 and <= 4,294,967,295, found 0.5."),
    ],
)
def test_numbers_out_of_range(arguments, message):
    with pytest.raises(ArgumentError) as caught:
        ft.meta.episodes(points(), **arguments)
    assert str(caught.value) == message


def test_too_few_classes_or_rows():
    with pytest.raises(
        DataError, match=r"Episodes of 7 classes .* which has 6: '0', '1', .* 1 oth"
    ):
        ft.meta.episodes(points(), ways=7)
    with pytest.raises(DataError, match="needs 9 rows for 1 shots and 8 queries, but 6 of 6 class"):
        ft.meta.episodes(points(), ways=2, queries=8)
    with pytest.raises(DataError, match="leaves 6 and 0 classes; each part needs at least two"):
        ft.meta.split_classes(points(), test=0.01)


def test_data_without_classes():
    with pytest.raises(DataTypeError, match=r"Expected Examples with labels, or a pair .* found 3"):
        ft.meta.episodes(3)
    with pytest.raises(DataError, match="has no column of labels, so episodes have no classes"):
        ft.meta.episodes(ft.data.Examples({"text": ["a", "b"]}))
    scores = ft.data.from_arrays(["a", "b"], [0.5, 1.5], labels=["score"])
    with pytest.raises(DataError, match="one class for each row, but .* are those of a regression"):
        ft.meta.episodes(scores)
    with pytest.raises(DataError, match="same number of rows, found 3 and 2"):
        ft.meta.episodes((np.zeros((3, 2)), np.zeros(2)))
    with pytest.raises(DataError, match=r"array \(rows,\) with one class .* the shape \(2, 1\)"):
        ft.meta.episodes((np.zeros((2, 2)), np.zeros((2, 1))))
