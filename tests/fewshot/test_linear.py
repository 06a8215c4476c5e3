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
