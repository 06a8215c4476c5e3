"""With KERAS_BACKEND=jax, the road from data to a saved model needs no TensorFlow."""

import numpy as np
import pytest
from helpers_images import TINY_VIT
from helpers_without_tensorflow import on_jax, road

import finetune_tf as ft
from finetune_tf.messages import quiet

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def classifier(tiny_bert, tmp_path_factory):
    """A checkpoint with a head, which is the same on both backends."""
    with quiet():
        model = ft.load(tiny_bert, labels=["bad", "fair", "good"])
        return model.save_pretrained(tmp_path_factory.mktemp("classifier"))


@pytest.fixture(scope="module")
def both(classifier, tmp_path_factory):
    """The numbers of the road on JAX without TensorFlow, and on TensorFlow."""
    pytest.importorskip("jax")
    ours, theirs = (tmp_path_factory.mktemp(name) for name in ("jax", "tensorflow"))
    found = on_jax("road", classifier, ours, output=ours / "found.json")
    assert not found["imported"]
    with quiet():
        return found["result"], road(classifier, theirs)


@pytest.mark.parametrize(
    "part",
    [
        "fit",
        "validation",
        "evaluate",
        "predict",
        "ft.predict",
        "a .keras file",
        "a folder",
        "cached features",
        "packed rows",
    ],
)
def test_numbers_are_those_of_tensorflow(both, part):
    found, expected = both
    assert np.size(found[part]) > 1
    np.testing.assert_allclose(found[part], expected[part], rtol=1e-5, atol=1e-6)


def test_decisions_and_data_are_those_of_tensorflow(both):
    found, expected = both
    for part in ("ft.evaluate", "reviews", "place"):
        assert found[part] == expected[part]


def test_a_training_imports_no_tensorflow_that_is_installed(classifier, tmp_path):
    pytest.importorskip("jax")
    assert not on_jax("training", classifier, output=tmp_path / "found.json", without=False)[
        "imported"
    ]


def test_what_needs_tensorflow_says_so(tmp_path):
    pytest.importorskip("jax")
    found = on_jax("refusals", TINY_VIT, output=tmp_path / "found.json")["result"]
    assert len(found) == 4
    for message, purpose in zip(
        found,
        ("augment= changes images", "from_tfds reads", "Splits of the reviews", "LogToTensorBoard"),
        strict=True,
    ):
        assert message.startswith(purpose)
        assert "TensorFlow, also with KERAS_BACKEND=jax, but it cannot be imported" in message


def test_keras_reads_the_batches_of_each_epoch_in_their_order(tmp_path):
    pytest.importorskip("jax")
    found = on_jax("orders", output=tmp_path / "found.json")["result"]
    first, second, third, fourth = found["iterators"]
    assert len(first) == 5 and sorted(sum(first, [])) == list(range(10)) and first != second
    assert found["epochs=3"] == found["shuffle=True"] == first + second + third
    # Keras ends an epoch at the end of the data, and continues in the middle of it.
    assert found["steps_per_epoch=3"] == first + second
    assert found["two fits"] == first[:1] + second + third
    assert found["from the middle"] == second[2:] + third
    assert fourth not in (first, second, third)


def test_an_error_leaves_a_model_with_its_weights(classifier, tmp_path):
    pytest.importorskip("jax")
    found = on_jax("after_errors", classifier, output=tmp_path / "found.json")["result"]
    assert len(found) == 6 and all(found.values()), found
