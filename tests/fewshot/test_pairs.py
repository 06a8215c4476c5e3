"""Pairs of texts: losses on all pairs of a batch, and batches with the same share of classes."""

import keras
import numpy as np
import pytest

from finetune_tf.errors import ArgumentError
from finetune_tf.fewshot import PairContrast, PairCosines
from finetune_tf.fewshot.sampling import balanced_order

RANDOM = np.random.default_rng(0)
VECTORS = RANDOM.normal(size=(6, 4)).astype("float32")


def cosines_of(vectors):
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit @ unit.T


def test_cosines_of_all_pairs_are_compared_with_their_labels():
    labels = np.array([0, 1, 0, 2, 1, 1])
    wanted = labels[:, None] == labels[None, :]
    expected = np.mean((cosines_of(VECTORS) - wanted) ** 2)
    assert float(PairCosines()(labels, VECTORS)) == pytest.approx(expected, rel=1e-5)


def test_several_labels_are_as_similar_as_their_sets_overlap():
    labels = np.array(
        [[1, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0], [1, 1, 1], [0, 0, 1]], dtype="float32"
    )
    sets = [set(np.flatnonzero(row)) for row in labels]
    wanted = [[len(a & b) / len(a | b) if a | b else 1.0 for b in sets] for a in sets]
    expected = np.mean((cosines_of(VECTORS) - np.array(wanted)) ** 2)
    loss = PairCosines(several=True)
    assert float(loss(labels, VECTORS)) == pytest.approx(expected, rel=1e-5)
    again = keras.saving.deserialize_keras_object(
        {"module": None, "class_name": "PairCosines", "config": loss.get_config()},
        custom_objects={"PairCosines": PairCosines},
    )
    assert again.several is True


def test_the_contrastive_loss_is_the_published_formula():
    labels = np.array([0, 1, 0, 2, 1, 1])
    scaled = cosines_of(VECTORS) / 0.5
    losses = []
    for i in range(6):
        others = [j for j in range(6) if j != i]
        alike = [j for j in others if labels[j] == labels[i]]
        log_sum = np.log(np.exp(scaled[i, others]).sum())
        losses.append(np.mean([log_sum - scaled[i, j] for j in alike]) if alike else 0.0)
    loss = PairContrast(temperature=0.5)
    assert float(loss(labels, VECTORS)) == pytest.approx(np.mean(losses), rel=1e-5)
    assert loss.get_config()["temperature"] == 0.5


def test_a_temperature_is_positive():
    with pytest.raises(ArgumentError, match=r"^temperature must be a number > 0, found 0\."):
        PairContrast(temperature=0)


def test_batches_have_the_same_number_of_texts_of_each_class():
    groups = [np.arange(40), np.arange(40, 45)]
    lengths = RANDOM.integers(3, 30, 45)
    order = balanced_order(groups, 10, 7, seed=0, lengths=lengths)
    assert order.shape == (7, 10)
    assert ((order < 40).sum(axis=1) == 5).all()
    assert all(len(set(batch)) == 10 for batch in order)
    assert (order == balanced_order(groups, 10, 7, seed=0, lengths=lengths)).all()
    assert (order != balanced_order(groups, 10, 7, seed=1, lengths=lengths)).any()


def test_texts_of_similar_length_meet():
    groups = [np.arange(0, 64), np.arange(64, 128)]
    lengths = np.tile(np.arange(64), 2)
    order = balanced_order(groups, 16, 8, seed=0, lengths=lengths)
    assert np.ptp(lengths[order], axis=1).max() == 7  # a window is one pass over the texts
    assert sorted(order.ravel()) == list(range(128))


def test_many_classes_take_turns_and_always_have_a_pair():
    groups = [np.arange(3 * i, 3 * i + 3) for i in range(20)]
    order = balanced_order(groups, 8, 10, seed=0, lengths=np.ones(60, dtype=int))
    assert order.shape == (10, 8)
    for batch in order:
        assert (np.unique(batch // 3, return_counts=True)[1] == 2).all()
    assert len(np.unique(order // 3)) == 20


def test_pairs_of_similar_length_meet_where_classes_take_turns():
    groups = [np.arange(8 * i, 8 * i + 8) for i in range(40)]
    lengths = RANDOM.integers(3, 30, 320)
    order = balanced_order(groups, 16, 60, seed=0, lengths=lengths)
    longest = lengths[order].max(axis=1).mean()
    by_chance = lengths[RANDOM.integers(0, 320, (60, 16))].max(axis=1).mean()
    assert longest < by_chance - 5
    assert np.ptp(np.bincount(order.ravel())) <= 2
    # Any two texts of a class may be a pair.
    first, second = order[:, ::2].ravel(), order[:, 1::2].ravel()
    assert (first // 8 == second // 8).all()
    partners = [set(second[first == row]) | set(first[second == row]) for row in range(320)]
    assert np.mean([len(each) for each in partners]) > 2


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 7])
def test_every_class_has_its_turn_in_few_steps(steps):
    groups = [np.arange(8 * i, 8 * i + 8) for i in range(10)]
    order = balanced_order(groups, 8, steps, seed=0, lengths=np.arange(80))
    assert order.shape == (steps, 8)
    assert len(np.unique(order // 8)) == min(10, 4 * steps)


def test_a_batch_is_not_larger_than_the_data():
    groups = [np.arange(2), np.arange(2, 4)]
    order = balanced_order(groups, 32, 3, seed=0, lengths=np.arange(4))
    assert all(sorted(batch) == [0, 1, 2, 3] for batch in order)


@pytest.mark.parametrize(("classes", "batch_size"), [(3, 4), (20, 32), (7, 12)])
def test_a_batch_has_no_class_twice(classes, batch_size):
    groups = [np.arange(4 * i, 4 * i + 4) for i in range(classes)]
    lengths = np.ones(4 * classes, dtype=int)
    order = balanced_order(groups, batch_size, 30, seed=0, lengths=lengths)
    share = 2 if batch_size < 2 * classes else batch_size // classes
    for batch in order:
        assert (np.unique(batch // 4, return_counts=True)[1] == share).all()
        assert len(np.unique(batch)) == batch_size
    # Classes take turns: none is left behind. A turn has each of its texts once.
    counts = np.bincount(order.ravel() // 4)
    assert counts.max() - counts.min() <= max(2 * share, 4)
    assert np.ptp(np.bincount(order.ravel())) <= 3
