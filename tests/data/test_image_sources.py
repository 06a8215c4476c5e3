"""Images from every source: folders, files with paths, arrays, and other libraries."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets as tfds
from helpers_images import TINY_VIT, content, levels, write_classes, write_image
from PIL import Image

import finetune_tf as ft
from finetune_tf.base.labels import Labels
from finetune_tf.data.image_columns import image_key
from finetune_tf.errors import DataError, DataTypeError, FinetuneError, ModelError
from finetune_tf.images import decode


def message(kind, function, *args, **options):
    with pytest.raises(kind) as error:
        function(*args, **options)
    return str(error.value)


class TestFolders:
    def test_class_folders_are_labels(self, tmp_path):
        folder = write_classes(tmp_path / "photos", 2)
        write_image(folder / "red" / "more" / "Z.PNG", seed=9)
        for ignored in ("red/.hidden.png", ".cache/x/0.png"):
            write_image(folder / ignored)
        (folder / "notes.txt").write_text("no image")
        examples = ft.data.from_image_folder(folder)
        found = ["blue/0.png", "blue/1.png", "red/0.png", "red/1.png", "red/more/Z.PNG"]
        assert examples.columns["image"] == [str(folder / path) for path in found]
        assert examples.columns["label"] == ["blue", "blue", "red", "red", "red"]
        assert examples.labels == Labels(["blue", "red"])
        assert repr(examples) == "<Examples photos: 5 rows of image, label; labels blue 2, red 3>"

    def test_class_names_that_are_numbers_stay_names(self, tmp_path):
        for name in ("0", "1", "10"):
            write_image(tmp_path / name / "a.png", seed=int(name))
        assert list(ft.data.from_image_folder(tmp_path).labels) == ["0", "1", "10"]

    def test_images_without_labels(self, tmp_path):
        write_image(tmp_path / "b.png")
        write_image(tmp_path / "some" / "a.png")
        examples = ft.data.from_image_folder(tmp_path, labels=False, name="mine")
        assert [path.rpartition("/")[2] for path in examples.columns["image"]] == ["b.png", "a.png"]
        assert examples.labels is None and examples.name == "mine"

    def test_a_folder_that_cannot_be_read(self, tmp_path):
        read = ft.data.from_image_folder
        assert message(DataError, read, tmp_path / "no") == f"There is no folder {tmp_path}/no."
        assert "for each class with its images, found no images" in message(
            DataError, read, tmp_path
        )
        assert "has no images: files that end in .jpg" in message(
            DataError, read, tmp_path, labels=False
        )
        write_image(tmp_path / "red" / "a.png")
        assert message(DataError, read, tmp_path) == (
            f"{tmp_path} has only one class folder with images, 'red'; a classifier needs at least "
            "two."
        )
        write_image(tmp_path / "blue" / "a.png")
        write_image(tmp_path / "loose.png")
        assert message(DataError, read, tmp_path) == (
            f"{tmp_path} must have a folder for each class with its images, found images directly "
            "in it, such as 'loose.png'. Images without labels are read with "
            "from_image_folder(folder, labels=False)."
        )

    @pytest.fixture
    def damaged(self, tmp_path):
        folder = write_classes(tmp_path / "photos", 2)
        (folder / "red" / "empty.png").write_bytes(b"")
        (folder / "red" / "text.jpg").write_text("no image")
        (folder / "blue" / "cut.png").write_bytes(content(levels())[:-30])
        return folder

    def test_files_that_are_no_complete_images_raise_an_error(self, damaged):
        told = message(DataError, ft.data.from_image_folder, damaged)
        assert told == (
            f"The image '{damaged}/blue/cut.png' in blue/cut.png of photos cannot be used: the PNG "
            "file is cut off: its end is missing; 3 of 7 rows. Replace or remove it. With "
            'on_invalid="drop" such rows are left out.'
        )

    def test_files_that_are_no_complete_images_are_left_out(self, damaged, capsys):
        examples = ft.data.from_image_folder(damaged, on_invalid="drop")
        assert len(examples) == 4
        assert (
            "photos: 3 of 7 rows are left out: 3 with a file that is not a complete image "
            "(blue/cut.png, red/empty.png, red/text.jpg)." in capsys.readouterr().out
        )


class TestFiles:
    def test_paths_are_relative_to_the_folder_of_the_file(self, tmp_path, monkeypatch):
        write_classes(tmp_path / "photos", 1)
        rows = [("photos/red/0.png", "r"), (str(tmp_path / "photos/blue/0.png"), "b")]
        table = tmp_path / "train.csv"
        table.write_text("file,kind\n" + "".join(f"{a},{b}\n" for a, b in rows))
        lines = tmp_path / "train.jsonl"
        lines.write_text("".join(json.dumps({"file": a, "kind": b}) + "\n" for a, b in rows))
        monkeypatch.chdir(tmp_path.parent)
        for read, path in ((ft.data.from_csv, table), (ft.data.from_jsonl, lines)):
            for given in (path, path.relative_to(tmp_path.parent)):
                examples = read(given, image="file", label="kind")
                for found, color in zip(examples.columns["image"], ("red", "blue"), strict=True):
                    np.testing.assert_array_equal(decode(found), levels(color))
                assert examples.columns["label"] == ["r", "b"]

    def test_missing_files_and_empty_cells(self, tmp_path, capsys):
        write_image(tmp_path / "a.png")
        write_image(tmp_path / "b.png", "blue")
        names = ["a.png", "b.png", "", *(f"no{i}.png" for i in range(12))]
        table = tmp_path / "train.csv"
        table.write_text("image,label\n" + "".join(f"{n},{i % 2}\n" for i, n in enumerate(names)))
        assert message(DataError, ft.data.from_csv, table, image="image") == (
            "The column 'image' of train.csv has rows without an image: line 4 (''); 1 of 15 rows. "
            'Remove these rows or fill them in. With on_invalid="drop" such rows are left out.'
        )
        examples = ft.data.from_csv(table, image="image", on_invalid="drop")
        assert len(examples) == 2
        assert (
            "13 of 15 rows are left out: 1 without an image (line 4); 12 with a missing file "
            "(line 5, line 6, line 7, …)." in capsys.readouterr().out
        )
        table.write_text(table.read_text().replace("\n,0", ""))
        told = message(DataError, ft.data.from_csv, table, image="image")
        first = f"names files that do not exist: '{tmp_path}/no0.png' (line 4), '{tmp_path}/no1"
        assert first in told and "no9.png' (line 13), …; 12 of 14 rows." in told
        assert "no10.png" not in told and "Relative paths" not in told


class TestArrays:
    def test_every_kind_of_image(self, tmp_path):
        array = levels()
        path = write_image(tmp_path / "a.png")
        images = [
            *(path, str(path), content(array), bytearray(content(array)), array),
            *(Image.fromarray(array), {"bytes": content(array), "path": "a.png"}),
            *({"bytes": None, "path": str(path)}, Tensor(array)),
        ]
        examples = ft.data.from_arrays(image=images, label=[0, 1, 0] * 3)
        assert len(examples) == 9
        for image in examples.columns["image"]:
            np.testing.assert_array_equal(decode(image), array)

    def test_arrays_of_several_images(self):
        colored = np.stack([levels(), levels("blue")])
        grey = colored[..., 0]
        for array in (colored, grey, list(grey), colored[..., :1]):
            examples = ft.data.from_arrays(image=array, label=["r", "b"])
            np.testing.assert_array_equal(examples.columns["image"][1], array[1])

    @pytest.mark.parametrize(
        ("images", "kind", "told"),
        [
            ([b""], DataError, "in row 0 of arrays cannot be used: the file is empty, 0 bytes"),
            ([b"no image"], DataError, "cannot be used: it is not an image of a known format"),
            ([None, 3], DataError, r"has rows without an image: row 0 \(None\); 1 of 2 rows"),
            ([3], DataTypeError, r"must hold images: paths, .*; found int: row 0 \(3\)"),
            ([levels() / 255], DataError, "it is an array of float64, but levels from 0 to 255"),
            (levels(), DataTypeError, r"takes a list of images, found a single array of the shape"),
            ("a.png", DataTypeError, "takes a list of images, found the single text 'a.png'"),
            (["no.png"], DataError, "'no.png' .*Relative paths begin at the current folder, /"),
        ],
    )
    def test_what_is_no_image(self, images, kind, told):
        with pytest.raises(kind, match=told):
            ft.data.from_arrays(image=images)

    def test_needs_an_input(self):
        with pytest.raises(DataTypeError, match="such as image="):
            ft.data.from_arrays(label=[0, 1])

    def test_a_data_frame(self, tmp_path):
        path = write_image(tmp_path / "a.png")
        frame = Frame(picture=[str(path), {"bytes": content(levels()), "path": None}], label=[0, 1])
        examples = ft.data.from_pandas(frame, image="picture")
        assert examples.columns["image"] == [str(path), content(levels())]


class Tensor:
    """An array of another library."""

    def __init__(self, array):
        self._array = array
        self.ndim = array.ndim

    def __array__(self, dtype=None, copy=None):
        return self._array


class Frame(dict):
    """As much of a data frame as is asked for."""

    columns = property(dict.keys)


class HuggingFaceData:
    """As much of a `datasets.Dataset` with images as is asked for."""

    def __init__(self, images, features):
        self.images, self.features, self.column_names = images, features, ["photo", "label"]

    def cast_column(self, column, feature):
        assert column == "photo" and not feature.decode
        return HuggingFaceData(self.images, {**self.features, column: feature})

    def __getitem__(self, column):
        if column == "label":
            return [1, 0]
        assert not self.features["photo"].decode, "all images would be decoded at once"
        return self.images


def test_a_data_set_of_hugging_face_gives_files_and_not_pixels():
    import dataclasses

    image = dataclasses.make_dataclass("Image", [("mode", object), ("decode", bool)])
    images = [{"bytes": content(levels(c)), "path": None} for c in ("red", "blue")]
    features = {"photo": image(None, True), "label": SimpleNamespace(names=["cat", "dog"])}
    examples = ft.data.from_huggingface(HuggingFaceData(images, features), image="photo")
    assert examples.columns["image"] == [image["bytes"] for image in images]
    assert examples.columns["label"] == ["dog", "cat"]


class LocalPhotos(tfds.core.GeneratorBasedBuilder):
    """Two images of different sizes."""

    VERSION = tfds.core.Version("1.0.0")
    IMAGES = {"red": levels("red", (5, 7)), "blue": levels("blue", (9, 4))}

    def _info(self):
        features = {
            "image": tfds.features.Image(encoding_format="png"),
            "label": tfds.features.ClassLabel(names=["red", "blue"]),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for label, image in self.IMAGES.items():
            yield label, {"image": image, "label": label}


def test_images_of_tensorflow_datasets(tmp_path):
    examples = ft.data.from_tfds(LocalPhotos(data_dir=tmp_path), image="image")
    assert examples.labels == Labels(["red", "blue"])
    assert set(examples.columns["label"]) == {"red", "blue"}
    for image, label in zip(*(examples.columns[name] for name in ("image", "label")), strict=True):
        assert isinstance(image, bytes)
        np.testing.assert_array_equal(decode(image), LocalPhotos.IMAGES[label])


class TestCopies:
    def test_equal_images_have_equal_keys(self, tmp_path):
        path = write_image(tmp_path / "a.png")
        same = write_image(tmp_path / "copy.png")
        other = write_image(tmp_path / "other.png", seed=1)
        keys = [image_key(image) for image in (path, str(path), same, path.read_bytes())]
        assert len(set(keys)) == 1 and image_key(other) not in keys
        array = levels()
        assert image_key(array) == image_key(Image.fromarray(array)) == image_key(array.copy())
        assert image_key(array) != image_key(array.reshape(30, 24, 3))

    def test_a_changed_file_has_another_key(self, tmp_path):
        path = write_image(tmp_path / "a.png")
        before = image_key(path)
        path.write_bytes(content(levels("blue")))
        assert image_key(path) != before

    def test_a_split_keeps_copies_together(self, tmp_path):
        folder = write_classes(tmp_path, 6)
        for color in ("red", "blue"):
            for seed in range(6):
                write_image(folder / color / f"copy{seed}.png", color, seed)
        train, held_out = ft.data.from_image_folder(folder).split(0.5, seed=1)
        assert len(train) == len(held_out) == 12
        assert sorted(held_out.columns["label"]) == ["blue"] * 6 + ["red"] * 6
        assert ft.data.overlap(train, held_out) == []

    def test_a_split_keeps_the_texts_of_an_image_together(self):
        """As captions, or as questions with answers."""
        images = [levels("green", seed=number) for number in range(10)] * 5
        texts = [f"caption {number}" for number in range(50)]
        for label in (None, [number % 3 for number in range(50)]):
            captions = ft.data.from_arrays(texts, label, image=images)
            train, held_out = captions.split(0.2)
            seen = set(map(image_key, train.columns["image"]))
            assert len(held_out) == 10
            assert seen.isdisjoint(map(image_key, held_out.columns["image"]))

    def test_overlap(self, tmp_path):
        folder = write_classes(tmp_path, 2)
        train = ft.data.from_image_folder(folder)
        copies = [content(levels("blue", seed=1)), content(levels("green")), folder / "red/0.png"]
        assert ft.data.overlap(train, ft.data.from_arrays(image=copies)) == [0, 2]

    def test_contradictory_labels(self, tmp_path, capsys):
        folder = write_classes(tmp_path / "photos", 2)
        write_image(folder / "blue" / "wrong.png", "red", 0)
        ft.data.from_image_folder(folder)
        assert capsys.readouterr().out == (
            "photos: 1 image stands there with different labels (2 rows), for example "
            f"'{folder}/blue/wrong.png': 'blue' in blue/wrong.png, 'red' in red/0.png. A model "
            "cannot learn both: correct them, or keep one row of each.\n"
        )


@pytest.fixture(scope="module")
def vit():
    return ft.load(TINY_VIT, labels=["blue", "red"], new_head=True)


@pytest.fixture(scope="module")
def bert(tiny_bert):
    return ft.load(tiny_bert, labels=["blue", "red"])


class TestPredict:
    @pytest.mark.slow
    def test_one_image_is_one_prediction(self, vit, tmp_path):
        path = write_image(tmp_path / "a.png")
        expected = ft.predict(vit, [path])[0]
        array = levels()
        for one in (path, str(path), path.read_bytes(), array, Image.fromarray(array)):
            assert ft.predict(vit, one) == expected
            assert ft.predict(vit, image=one) == expected
        assert ft.predict(vit, {"bytes": path.read_bytes(), "path": None}) == expected

    def test_several_images(self, vit, tmp_path):
        folder = write_classes(tmp_path, 2)
        examples = ft.data.from_image_folder(folder)
        paths = examples.columns["image"]
        expected = [ft.predict(vit, path) for path in paths]
        array = np.stack([decode(path) for path in paths])
        for several in (paths, tuple(paths), iter(paths), array, list(array), examples):
            found = ft.predict(vit, several)
            assert [p.label for p in found] == [p.label for p in expected]
            np.testing.assert_allclose([p.score for p in found], [p.score for p in expected], 1e-5)
        assert len(ft.predict(vit, image=paths)) == 4
        assert ft.predict(vit, []) == []

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            ({}, "predict for image-classification takes images"),
            ({"texts": b"", "image": b""}, "takes images: predict"),
            ({"texts": "a.png", "text_pair": "b.png"}, "takes images: predict"),
            ({"texts": "a good film"}, "files that do not exist: 'a good film'"),
            ({"texts": levels() / 255}, "row 0 of images cannot be used: it is an array of float"),
        ],
    )
    def test_what_is_no_image(self, vit, arguments, told):
        assert told in message(DataError, ft.predict, vit, **arguments)


class TestOtherModels:
    texts = ft.data.from_arrays(["a film", "a story"], ["red", "blue"])
    images = ft.data.from_arrays(image=[levels(), levels("blue")], label=["red", "blue"])

    @pytest.mark.parametrize("call", ["batches", "predict", "evaluate"])
    def test_examples_of_the_other_kind(self, bert, vit, call):
        def use(model, examples):
            if call == "batches":
                return examples.batches(model)
            return getattr(ft, call)(model, examples)

        told = message(ModelError, use, bert, self.images)
        assert "reads the columns text, text_pair, label, but arrays has image" in told
        told = message(ModelError, use, vit, self.texts)
        assert "The task image-classification reads the columns image, label" in told
        assert 'from_jsonl(path, image="…")' in told

    def test_the_hint_names_tasks_of_the_columns(self, bert):
        told = message(ModelError, self.images.batches, bert)
        assert "With these columns the task can be image-classification" in told

    def test_values_of_the_other_kind(self, bert):
        assert "takes texts and text_pair, found image" in message(
            DataError, ft.predict, bert, image=[levels()]
        )
        for image in (levels(), Image.fromarray(levels())):
            told = message(DataTypeError, ft.predict, bert, image)
            assert 'ft.load(checkpoint, "image-classification")' in told

    @pytest.mark.slow
    @pytest.mark.parametrize("call", ["fit", "evaluate", "predict"])
    def test_batches_of_the_other_kind(self, bert, vit, call):
        images, texts = self.images.batches(vit, 2), self.texts.batches(bert, 2)
        told = message(FinetuneError, getattr(vit, call), texts, verbose=0)
        assert "reads images and expects the input pixel_values, found input_ids" in told
        told = message(FinetuneError, getattr(bert, call), images, verbose=0)
        assert "found pixel_values" in told

    def test_examples_instead_of_batches(self, vit):
        told = message(DataTypeError, vit.fit, self.images)
        assert "Prepare the images: train.batches(model, batch_size=32, shuffle=True)" in told
