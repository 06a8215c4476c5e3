"""Losses and metrics of a fit and of an evaluation do not depend on how rows make batches."""

import keras
import numpy as np
import pytest
from helpers_tasks import VOCABULARY, small_task_model

import finetune_tf as ft
from finetune_tf.messages import quiet
from finetune_tf.training.classification import Accuracy
from finetune_tf.training.loss_mean import number_of_targets

pytestmark = pytest.mark.jax
LENGTHS = np.array([1, 6, 2, 6, 1, 1, 5])


def compiled(case, loss=None):
    model = small_task_model(case)
    with quiet():
        model.compile(keras.optimizers.SGD(0.0), loss, run_eagerly=True)
    return model


def tokens(classes):
    """Ids (rows, length), and targets for as many tokens as `LENGTHS` says."""
    random = np.random.default_rng(1)
    ids = random.integers(5, VOCABULARY, (len(LENGTHS), 6))
    targets = random.integers(0, classes, ids.shape)
    return ids, np.where(np.arange(6) < LENGTHS[:, None], targets, -100)


@pytest.mark.parametrize("weights", [None, np.linspace(0.5, 2.0, 7)], ids=["plain", "weighted"])
@pytest.mark.parametrize("case", ["tokens", "words"])
def test_each_target_counts_once(case, weights):
    model = compiled(case)
    ids, targets = tokens(model.outputs[0].shape[-1])
    log_p = keras.ops.convert_to_numpy(keras.ops.log_softmax(model(ids), -1))
    counted = targets != -100
    losses = -np.take_along_axis(log_p, np.where(counted, targets, 0)[..., None], -1)[..., 0]
    of_rows = np.ones(7) if weights is None else weights
    expected = (losses * counted * of_rows[:, None]).sum() / counted.sum()
    given = {"sample_weight": weights, "verbose": 0}
    for size in (2, 7):
        found = model.evaluate(ids, targets, batch_size=size, return_dict=True, **given)
        assert found["loss"] == pytest.approx(expected, rel=1e-5), size
    found = model.fit(ids, targets, batch_size=3, shuffle=False, **given).history
    assert found["loss"] == pytest.approx([expected], rel=1e-5)


def test_a_model_from_a_file_counts_in_the_same_way(tmp_path):
    model = compiled("tokens")
    data = {**dict(zip("xy", tokens(3), strict=True)), "batch_size": 2, "verbose": 0}
    expected = model.evaluate(**data, return_dict=True)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.evaluate(**data, return_dict=True) == pytest.approx(expected, rel=1e-5)


def test_all_tokens_of_rows_over_the_classes_count():
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    outputs = keras.KerasTensor((None, None, 3))
    counted = number_of_targets({}, np.zeros((2, 5, 3), "float32"), outputs, "classes", loss)
    assert float(counted) == 10


def test_losses_of_which_nothing_is_known_count_by_rows():
    def first(targets, logits):
        return keras.ops.mean(logits[:, 0, 0])

    model = compiled("tokens", first)
    ids, targets = tokens(3)
    found = model.evaluate(ids, targets, batch_size=2, return_dict=True, verbose=0)
    expected = np.asarray(model(ids))[:, 0, 0].mean()
    assert found["loss"] == pytest.approx(expected, rel=1e-5)


def test_targets_of_a_long_batch_count_as_much_as_others_in_the_accuracy():
    accuracy = Accuracy()
    accuracy.update_state(np.array([[1, 1]]), np.eye(2)[[[1, 1]]])  # both right
    accuracy.update_state(np.array([[1, 1, 1, 1, 1, 1]]), np.eye(2)[[[0] * 6]])  # all wrong
    accuracy.update_state(np.array([1, 1]), np.eye(2)[[1, 1]])
    assert float(accuracy.result()) == pytest.approx(4 / 10)


@pytest.mark.slow
def test_the_accuracy_of_tokens_in_batches_of_several_lengths(tiny_bert):
    words = [["a"] * n + ["film"] * (n % 3) for n in (1, 9, 2, 4, 1, 12)]
    tags = [["B" if word == "film" else "O" for word in row] for row in words]
    examples = ft.data.from_arrays(tokens=words, tags=tags)
    with quiet():
        model = ft.load(tiny_bert, "token-classification", labels=examples.labels)
        model.compile(keras.optimizers.SGD(0.0))
        found = [
            model.evaluate(examples.batches(model, size), verbose=0, return_dict=True)
            for size in (1, 6)
        ]
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert 0 < found[0]["accuracy"] < 1


@pytest.mark.slow
@pytest.mark.parametrize("case", ["one label", "several labels", "number", "pairs", "scores"])
def test_packed_batches_with_other_numbers_of_texts(case, tiny_bert):
    random = np.random.default_rng(0)
    texts = [f"a {'very ' * (i % 9)}good film" for i in range(40)]
    names = random.choice(["x", "y", "z"], 40).tolist()
    numbers = [len(text) + 0.5 for text in texts]
    columns, task = {
        "one label": ({"label": names}, None),
        "several labels": ({"label": [[name] for name in names]}, None),
        "number": ({"label": numbers}, None),
        "pairs": ({"text_pair": texts[::-1]}, "feature-extraction"),
        "scores": ({"text_pair": texts[::-1], "label": random.random(40)}, "feature-extraction"),
    }[case]
    examples = ft.data.from_arrays(texts, **columns)
    with quiet():
        model = ft.load(tiny_bert, task, labels=None if task else examples.labels)
        model.compile(keras.optimizers.SGD(0.0))
        packed = examples.batches(model, 6, packing=30)
        padded = examples.batches(model, 40, buckets=1)
    counts = {int((x["text_starts"] >= 0).sum()) for x, _ in packed.as_numpy_iterator()}
    assert len(counts) > 1
    found = model.evaluate(packed, verbose=0, return_dict=True)
    if task:  # the loss compares the pairs of a batch with each other
        losses, counts = [], []
        for inputs, targets in packed.as_numpy_iterator():
            losses.append(model.test_on_batch(inputs, targets, return_dict=True)["loss"])
            counts.append((inputs["text_starts"] >= 0).sum())
        expected = np.average(losses, weights=counts)
    else:
        expected = model.evaluate(padded, verbose=0, return_dict=True)["loss"]
    assert found["loss"] == pytest.approx(expected, rel=1e-4)
