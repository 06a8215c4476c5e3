"""Prepared images: decoded once, stored in memory or in a file, and right in every thread."""

import gc
import shutil
import tempfile
import threading
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from helpers_images import TINY_VIT, content, levels, write_classes

import finetune_tf as ft
from finetune_tf.errors import DataError
from finetune_tf.images import CheckedImages, ImageProcessor, PreparedImages

SIZE = 8


@dataclass(frozen=True)
class CountingProcessor(ImageProcessor):
    """Counts how often it prepares each image, by the first level of the image."""

    calls: Counter = field(default_factory=Counter, compare=False)
    lock: threading.Lock = field(default_factory=threading.Lock, compare=False)

    def __call__(self, image):
        with self.lock:
            self.calls[int(image[0, 0, 0])] += 1
        return super().__call__(image)


def counting_processor(size=SIZE):
    return CountingProcessor.from_config({"size": size}, "ViTImageProcessor")


def grey(count):
    """Images that are filled with their number."""
    return [np.full((5, 7, 3), i, "uint8") for i in range(count)]


def prepared(images, processor, **options):
    return PreparedImages(images, processor, "row {} of photos".format, **options)


def mapped_files(folder):
    """The lines of the system's table about files of a folder that this process has mapped."""
    table = Path("/proc/self/maps")
    if not table.exists():
        pytest.skip("only Linux has a table of mapped files")
    return [line for line in table.read_text().splitlines() if str(folder) in line]


def test_rows_are_what_the_processor_makes():
    images = [levels(seed=i) for i in range(3)]
    processor = counting_processor()
    rows = prepared(images, processor)
    assert rows.shape == (3, SIZE, SIZE, 3) and len(rows) == 3
    expected = np.stack([processor(image) for image in images])
    np.testing.assert_array_equal(rows.batch(np.array([2, 0, 2])), expected[[2, 0, 2]])
    np.testing.assert_array_equal(rows[-1], expected[2])
    np.testing.assert_array_equal(np.stack(list(rows)), expected)


@pytest.mark.parametrize("in_memory", [1 << 20, 0])
def test_rows_with_the_same_image_share_what_was_prepared(in_memory):
    """The same object or path, such as several questions about an image."""
    processor = counting_processor()
    images = grey(3)
    numbers = [1, 0, 1, 1, 2, 0]
    rows = prepared([images[i] for i in numbers], processor, in_memory=in_memory)
    assert rows.shape == (6, SIZE, SIZE, 3) and len(rows) == 6
    rows.prepare_all()
    np.testing.assert_array_equal(rows.batch(np.arange(6))[:, 0, 0, 0], numbers)
    assert rows[3][0, 0, 0] == 1
    assert processor.calls == dict.fromkeys(range(3), 1)


@pytest.mark.parametrize("in_memory", [1 << 20, 0])
def test_each_image_is_decoded_once(in_memory):
    processor = counting_processor()
    rows = prepared(grey(20), processor, in_memory=in_memory)
    assert rows.is_stored and not processor.calls
    rows.prepare_all()
    for _ in range(3):
        for batch in np.random.default_rng(0).permutation(20).reshape(4, 5):
            np.testing.assert_array_equal(rows.batch(batch)[:, 3, 4, 1], batch)
    assert processor.calls == dict.fromkeys(range(20), 1)


def test_only_the_rows_that_are_read_are_decoded():
    processor = counting_processor()
    rows = prepared(grey(20), processor)
    rows.batch(np.array([3, 5]))
    rows.batch(np.array([5, 7]))
    assert sorted(processor.calls) == [3, 5, 7]


def test_a_large_corpus_goes_to_a_file_without_a_name(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    rows = prepared(grey(20), counting_processor(), in_memory=20 * SIZE * SIZE * 3 - 1)
    assert rows.is_stored
    rows.prepare_all()
    assert list(tmp_path.iterdir()) == []
    store = rows.batch(np.arange(20))
    np.testing.assert_array_equal(store[:, 0, 0, 0], np.arange(20))
    (mapped,) = mapped_files(tmp_path)
    assert mapped.endswith("(deleted)")
    del rows, store
    gc.collect()
    assert not mapped_files(tmp_path)


def test_in_memory_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    rows = prepared(grey(20), counting_processor(), in_memory=20 * SIZE * SIZE * 3)
    rows.prepare_all()
    assert not mapped_files(tmp_path)


@pytest.mark.slow
def test_without_room_on_the_disk_images_are_decoded_for_each_batch():
    images = [image[:] for image in grey(2) * 500_000]  # each is an object of its own
    processor = counting_processor(1000)  # 3 TB
    rows = prepared(images, processor)
    assert not rows.is_stored and rows.shape == (1_000_000, 1000, 1000, 3)
    for _ in range(3):
        batch = rows.batch(np.array([1, 999_998]))
        np.testing.assert_array_equal(batch[:, 0, 0, 0], [1, 0])
    assert processor.calls == {0: 3, 1: 3}


@pytest.mark.parametrize("in_memory", [1 << 20, 0])
def test_threads_do_not_mix_up_rows(in_memory):
    images = [content(np.full((16, 16, 3), i, "uint8")) for i in range(200)]
    processor = ImageProcessor.from_config({"size": SIZE}, "ViTImageProcessor")
    rows = prepared(images, processor, in_memory=in_memory)
    orders = [np.random.default_rng(i).permutation(200).reshape(-1, 8) for i in range(8)]

    def read(order):
        return all((rows.batch(batch) == batch[:, None, None, None]).all() for batch in order)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, orders))


@pytest.mark.parametrize("read", ["prepare_all", "batch"])
def test_an_image_that_cannot_be_used_is_named(read, tmp_path):
    path = tmp_path / "late.png"
    rows = prepared([*grey(2), str(path)], ImageProcessor.from_config({}, "ViTImageProcessor"))
    with pytest.raises(DataError) as error:
        rows.prepare_all() if read == "prepare_all" else rows.batch(np.array([0, 2]))
    assert str(error.value) == (
        f"The image {str(path)!r} of row 2 of photos cannot be used: there is no such file. "
        "Replace or remove it."
    )


class TestColumns:
    title = staticmethod("row {}".format)

    def test_equal_processors_share_prepared_images(self):
        column = CheckedImages(grey(3))
        first = column.prepared(counting_processor(), self.title)
        assert column.prepared(counting_processor(), self.title) is first
        assert column.prepared(counting_processor(9), self.title) is not first

    def test_those_of_two_processors_are_kept(self):
        column = CheckedImages(grey(3))
        kept = [column.prepared(counting_processor(size), self.title) for size in (8, 9, 8, 10)]
        assert kept[0] is kept[2]
        assert column.prepared(counting_processor(8), self.title) is kept[0]
        assert column.prepared(counting_processor(9), self.title) is not kept[1]

    def test_they_are_freed_with_the_column(self):
        column = CheckedImages(grey(3))
        rows = weakref.ref(column.prepared(counting_processor(), self.title))
        assert rows() is not None
        del column
        assert rows() is None


class TestBatches:
    @pytest.fixture(scope="class")
    @classmethod
    def model(cls):
        return ft.load(TINY_VIT, labels=["blue", "red"], new_head=True)

    @pytest.mark.slow
    def test_files_are_read_once_for_all_batches(self, model, tmp_path):
        folder = write_classes(tmp_path / "photos")
        examples = ft.data.from_image_folder(folder)
        first = [batch[0]["pixel_values"] for batch in examples.batches(model, 4)]
        predictions = ft.predict(model, examples)
        shutil.rmtree(folder)
        again = [batch[0]["pixel_values"] for batch in examples.batches(model, 4)]
        for one, other in zip(first, again, strict=True):
            np.testing.assert_array_equal(one, other)
        assert len(list(examples.batches(model, 2, shuffle=True))) == 3
        assert ft.predict(model, examples) == predictions
        other_size = ft.load(TINY_VIT, labels=["blue", "red"], new_head=True, image_size=26)
        with pytest.raises(DataError, match="there is no such file"):
            examples.batches(other_size)

    def test_parts_of_a_data_set_are_not_checked_again(self, tmp_path):
        folder = write_classes(tmp_path / "photos")
        examples = ft.data.from_image_folder(folder)
        shutil.rmtree(folder)
        assert len(examples.take(2)) == 2
        assert examples.shuffle()[:3].columns["image"] != examples.columns["image"][:3]

    def test_pixels_are_freed_with_the_examples(self, model):
        examples = ft.data.from_arrays(image=grey(4), label=["blue", "red"] * 2)
        batches = examples.batches(model, 2)
        assert len(list(batches)) == 2
        rows = weakref.ref(examples.encoded(model).inputs["pixel_values"].rows)
        assert rows() is not None
        del examples, batches
        gc.collect()
        assert rows() is None

    def test_an_iterator_and_derived_datasets_keep_the_pixels(self, model):
        def batches():
            examples = ft.data.from_arrays(image=grey(4), label=["blue", "red"] * 2)
            return examples.batches(model, 2)

        iterator, derived = iter(batches()), batches().map(lambda x, y: x).take(2)
        gc.collect()
        assert len(list(iterator)) == 2
        assert len(list(derived)) == 2
