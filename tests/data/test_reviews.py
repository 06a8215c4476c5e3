"""The data set that comes with finetune_tf."""

import subprocess
from collections import Counter

import pytest
from helpers_checkpoints import python

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


def test_a_builder_made_before_another_process_prepared_the_data(tmp_path):
    from finetune_tf.data.reviews.builder import EverydayReviews

    early, late = EverydayReviews(data_dir=tmp_path), EverydayReviews(data_dir=tmp_path)
    assert len(ft.data.from_tfds(early, "test")) == 726
    assert len(ft.data.from_tfds(late, "test")) == 726


BUILDING = """
import sys
import finetune_tf as ft
from finetune_tf.data.reviews.builder import EverydayReviews

print("ready", flush=True)
sys.stdin.readline()
print(len(ft.data.reviews("test", data_dir=sys.argv[1])))
"""


@pytest.mark.slow
def test_processes_that_prepare_the_data_at_once(tmp_path):
    processes = [python(BUILDING, tmp_path, stdin=subprocess.PIPE) for _ in range(3)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        assert output.splitlines()[-1] == "726"
    assert [path.name for path in (tmp_path / "everyday_reviews").iterdir()] == ["1.1.0"]
