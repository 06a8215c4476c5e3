"""Figures of the images of a batch."""

import sys

import numpy as np
import pytest
import tensorflow as tf
from helpers_images import TINY_VIT

import finetune_tf as ft
from finetune_tf.errors import ArgumentError, DataTypeError, MissingExtraError

RANDOM = np.random.default_rng(0)
IMAGES = list(RANDOM.integers(0, 256, (10, 21, 21, 3)).astype("uint8"))
LABELS = ["$5 note", "狗"] * 5
EXAMPLES = ft.data.from_arrays(image=IMAGES, label=LABELS)


@pytest.fixture(scope="module")
def model():
    return ft.load(TINY_VIT, labels=EXAMPLES.labels, new_head=True)


def drawn(figure):
    """The pixels and the title of each image of a figure."""
    return [(axes.images[0].get_array(), axes.get_title()) for axes in figure.axes]


def test_images_and_labels_of_a_batch(model):
    found = drawn(ft.show(EXAMPLES.batches(model)))
    assert len(found) == 10
    for (pixels, title), image, label in zip(found, IMAGES, LABELS, strict=True):
        np.testing.assert_array_equal(pixels, image)
        number = list(EXAMPLES.labels).index(label)
        # A label that no font can draw is replaced by its number.
        assert title in (label, f"class {number}") if label == "狗" else title == label


def test_the_batch_that_a_fit_begins_with(model):
    batches = EXAMPLES.batches(model, 4, shuffle=True, augment=["flip", "color"])
    batches.cursor.epoch, batches.cursor.batch = 2, 1
    figure = ft.show(batches)
    assert (batches.cursor.epoch, batches.cursor.batch) == (2, 1)
    inputs, targets = next(iter(batches))
    for (pixels, title), image, target in zip(
        drawn(figure), inputs["pixel_values"], targets, strict=True
    ):
        np.testing.assert_array_equal(pixels, image)
        assert title.startswith("$5") == (model.labels[int(target)] == "$5 note")


def test_rows_and_columns(model):
    figure = ft.show(EXAMPLES.batches(model), rows=2, columns=3)
    assert len(figure.axes) == 6
    places = [tuple(axes.get_subplotspec().get_geometry()[:2]) for axes in figure.axes]
    assert set(places) == {(2, 3)}
    assert len(ft.show(EXAMPLES.batches(model), rows=9, columns=9).axes) == 10


def test_the_figure_can_be_written_and_is_shown_by_notebooks(model, tmp_path):
    figure = ft.show(EXAMPLES.batches(model))
    figure.savefig(tmp_path / "images.png")
    assert (tmp_path / "images.png").stat().st_size > 1000
    assert figure._repr_png_().startswith(b"\x89PNG")


def batches_of(pixels, targets, labels=None):
    data = ({"pixel_values": pixels}, targets) if targets is not None else {"pixel_values": pixels}
    batches = tf.data.Dataset.from_tensors(data)
    batches.labels = labels
    return batches


@pytest.mark.parametrize(
    ("targets", "labels", "titles"),
    [
        ([1, 0], ["a", "b"], ["b", "a"]),
        ([1, 0], None, ["1", "0"]),
        ([[0.7, 0.3], [0.0, 1.0]], ["a", "b"], ["a 70%, b 30%", "b"]),
        ([[1.0, 1.0], [0.0, 0.0]], ["a", "b"], ["a, b", ""]),
        ([0.5, 2.0], "score", ["0.5", "2"]),
        (None, ["a", "b"], ["", ""]),
    ],
)
def test_titles(targets, labels, titles):
    if labels == "score":
        labels = ft.Labels(["score"], "regression")
    elif labels is not None:
        labels = ft.Labels(labels)
    figure = ft.show(batches_of(np.zeros((2, 5, 5, 3), "uint8"), targets, labels))
    assert [axes.get_title() for axes in figure.axes] == titles


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (tf.data.Dataset.from_tensors({"input_ids": [[1]]}), "found batches of input_ids."),
        (EXAMPLES, "found <Examples arrays: 10 rows of image, label"),
        (tf.data.Dataset.from_tensors([1]), "found <_TensorDataset"),
    ],
)
def test_what_is_no_batch_of_images(given, found):
    with pytest.raises(DataTypeError) as error:
        ft.show(given)
    assert str(error.value).startswith("show draws batches of images, such as train.batches(model")
    assert found in str(error.value)


def test_no_rows():
    with pytest.raises(ArgumentError, match="rows must be an integer >= 1"):
        ft.show(EXAMPLES, rows=0)


def test_matplotlib_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"finetune-tf\[report\]"):
        ft.show(batches_of(np.zeros((2, 5, 5, 3), "uint8"), None))
