"""The data set that comes with finetune_tf."""

from collections import Counter

import pytest

import finetune_tf as ft
from finetune_tf.data.reviews import NAMES


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    return {s: ft.data.reviews(s, data_dir=folder) for s in ("train", "validation", "test")}


def test_a_real_tfds_builder_serves_the_reviews(splits, tmp_path):
    import tensorflow_datasets as tfds

    from finetune_tf.data.reviews.builder import EverydayReviews

    builder = EverydayReviews(data_dir=tmp_path)
    assert isinstance(builder, tfds.core.GeneratorBasedBuilder)
    assert builder.info.features["label"].names == list(NAMES)
    assert {name: len(split) for name, split in splits.items()} == {
        "train": 738, "validation": 96, "test": 726,
    }  # fmt: skip


def test_labels_are_balanced_names(splits):
    for examples in splits.values():
        assert tuple(examples.labels) == NAMES
        counts = Counter(examples.columns["label"]).values()
        assert max(counts) < 1.15 * min(counts)


def test_each_review_is_one_of_a_kind(splits):
    texts = [text for examples in splits.values() for text in examples.columns["text"]]
    assert len({" ".join(text.casefold().split()) for text in texts}) == len(texts) >= 500
    openings = Counter(" ".join(text.casefold().split()[:4]) for text in texts)
    assert openings.most_common(1)[0][1] <= 2  # nothing filled in from a template
    assert not ft.data.overlap(splits["train"], splits["test"])
