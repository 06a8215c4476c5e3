"""Linear heads on vectors."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from finetune_tf.fewshot.linear import cross_entropy, logistic, prototypes

RANDOM = np.random.default_rng(0)
CENTERS = RANDOM.normal(size=(3, 8))
TARGETS = np.arange(60) % 3
VECTORS = CENTERS[TARGETS] + 0.6 * RANDOM.normal(size=(60, 8))
NEW_TARGETS = np.arange(90) % 3
NEW = CENTERS[NEW_TARGETS] + 0.6 * RANDOM.normal(size=(90, 8))


@pytest.mark.parametrize("classes", [2, 3])
def test_the_logistic_head_is_that_of_scikit_learn_on_scaled_vectors(classes):
    rows = np.less(TARGETS, classes)
    vectors, targets = VECTORS[rows], TARGETS[rows]
    head, C = logistic(vectors, targets, classes, C=5.0)
    mean = vectors.mean(axis=0)
    scale = np.sqrt(np.mean(np.sum((vectors - mean) ** 2, axis=1)))
    expected = LogisticRegression(C=5.0, max_iter=1000).fit((vectors - mean) / scale, targets)
    logits = head(NEW)
    found = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert C == 5.0
    np.testing.assert_allclose(found, expected.predict_proba((NEW - mean) / scale), atol=1e-8)


def test_the_strength_is_chosen_by_the_cross_entropy_of_other_examples():
    # Labels that have nothing to do with the vectors are predicted best by ignoring the vectors.
    noise = RANDOM.permutation(TARGETS)
    _, on_noise = logistic(VECTORS, noise, 3)
    _, on_signal = logistic(VECTORS, TARGETS, 3)
    assert on_noise == 1.0 < on_signal
    _, held_out = logistic(VECTORS, TARGETS, 3, held_out=(NEW, RANDOM.permutation(NEW_TARGETS)))
    assert held_out == 1.0


def test_two_examples_of_each_class_are_too_few_to_choose():
    head, C = logistic(VECTORS[:6], TARGETS[:6], 3)
    assert C == 10.0
    assert (head(VECTORS[:6]).argmax(axis=1) == TARGETS[:6]).all()


def test_prototypes_choose_the_nearest_mean():
    means = np.stack([VECTORS[np.equal(TARGETS, i)].mean(axis=0) for i in range(3)])
    distances = np.linalg.norm(NEW[:, None] - means, axis=2)
    head = prototypes(VECTORS, TARGETS, 3)
    assert (head(NEW).argmax(axis=1) == distances.argmin(axis=1)).all()
    # Probabilities are of a sensible size: better than chance, and not certain.
    assert cross_entropy(head(NEW), NEW_TARGETS) < np.log(3)
    one_shot = prototypes(VECTORS[:3], TARGETS[:3], 3)
    assert (one_shot(VECTORS[:3]).argmax(axis=1) == TARGETS[:3]).all()


def test_several_labels_have_a_head_each():
    targets = np.stack([TARGETS == 0, TARGETS != 1, np.ones(60)], axis=1).astype("float32")
    new_targets = np.stack([NEW_TARGETS == 0, NEW_TARGETS != 1, np.ones(90)], axis=1)
    head, _ = logistic(VECTORS, targets, 3)
    assert np.mean((head(NEW) > 0) == new_targets) > 0.9
    nearest = prototypes(VECTORS, targets[:, :2], 2)
    assert np.mean((nearest(NEW) > 0) == new_targets[:, :2]) > 0.85


def probabilities(logits):
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def test_probabilities_of_prototypes_do_not_count_an_example_in_its_own_mean():
    # Vectors that have nothing to do with the labels: sure predictions would be wrong ones.
    generator = np.random.default_rng(0)
    vectors, new = generator.normal(size=(16, 64)), generator.normal(size=(400, 64))
    targets, new_targets = np.repeat([0, 1], 8), generator.integers(0, 2, 400)
    head = prototypes(vectors, targets, 2)
    assert cross_entropy(head(new), new_targets) < 1.1 * np.log(2)
    head = prototypes(vectors, np.eye(2)[targets], 2)
    assert cross_entropy(head(new), np.eye(2)[new_targets]) < 1.1 * np.log(2)


def test_prototypes_of_single_examples_are_not_certain():
    head = prototypes(VECTORS[:3], TARGETS[:3], 3)
    assert 0.4 < probabilities(head(VECTORS[:3])).max() < 0.99


def test_a_label_that_all_examples_have_is_always_predicted():
    vectors = np.random.default_rng(0).normal(size=(40, 8))
    targets = np.ones((40, 2), dtype="float32")
    targets[20:, 1] = 0
    head = prototypes(vectors, targets, 2)
    expected = prototypes(vectors, targets[:, 1:], 1)
    np.testing.assert_allclose(head(vectors)[:, 1:], expected(vectors))
    np.testing.assert_allclose(head(vectors)[:, 0], np.log(40.5 / 0.5))
    assert (prototypes(vectors, np.ones((40, 1)), 1)(vectors) > 0).all()


def test_prototypes_keep_their_digits_where_vectors_share_a_large_part():
    head = prototypes(VECTORS, TARGETS, 3)
    shift = np.zeros(8)
    shift[3] = 3000.0  # such as in the outlier dimensions of pretrained models
    shifted = prototypes(VECTORS + shift, TARGETS, 3)
    kernel, bias = shifted.kernel.astype("float32"), shifted.bias.astype("float32")
    found = (NEW + shift).astype("float32") @ kernel + bias
    np.testing.assert_allclose(probabilities(found), probabilities(head(NEW)), atol=2e-3)
