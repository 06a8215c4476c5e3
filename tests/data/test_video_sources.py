"""Videos from every source: folders, files with paths, arrays, and other libraries."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets as tfds
from helpers_images import levels, write_image
from helpers_videos import CLASSES, gif, moving_squares, write_gif, write_mp4

import finetune_tf as ft
from finetune_tf.errors import DataError, DataTypeError


@pytest.fixture(scope="module")
def clips():
    return moving_squares(2, seed=0)[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, clips):
    root = tmp_path_factory.mktemp("videos")
    for i, clip in enumerate(clips):
        write_gif(root / CLASSES[i % 2] / f"{i}.gif", clip)
    (root / "left" / "notes.txt").write_text("no video")
    return root


def message(kind, function, *args, **options):
    with pytest.raises(kind) as error:
        function(*args, **options)
    return str(error.value)


class TestFolders:
    def test_class_folders_are_labels(self, folder):
        examples = ft.data.from_video_folder(folder)
        found = ["left/0.gif", "left/2.gif", "right/1.gif", "right/3.gif"]
        assert examples.columns["video"] == [str(folder / path) for path in found]
        assert list(examples.labels) == ["left", "right"]
        unlabelled = ft.data.from_video_folder(folder, labels=False)
        assert list(unlabelled.columns) == ["video"]

    def test_folders_of_video_files(self, tmp_path, clips):
        pytest.importorskip("av")
        for i, clip in enumerate(clips):
            write_mp4(tmp_path / CLASSES[i % 2] / f"{i}.mp4", clip)
        assert len(ft.data.from_video_folder(tmp_path)) == 4

    def test_a_folder_that_cannot_be_read(self, tmp_path, folder, clips):
        read = ft.data.from_video_folder
        assert message(DataError, read, tmp_path / "no") == f"There is no folder {tmp_path}/no."
        assert "for each class with its videos, found no videos" in message(
            DataError, read, tmp_path
        )
        loose = message(DataError, read, folder / "left")
        assert "found videos directly in it, such as '0.gif'. Videos without labels are read with "
        assert "from_video_folder(folder, labels=False)" in loose
        write_gif(tmp_path / "left" / "0.gif", clips[0])
        assert "has only one class folder with videos, 'left'" in message(DataError, read, tmp_path)
        (tmp_path / "right").mkdir()
        (tmp_path / "right" / "0.gif").touch()
        assert f"The video '{tmp_path}/right/0.gif' in right/0.gif of" in message(
            DataError, read, tmp_path
        )
        assert "the file is empty, 0 bytes" in message(DataError, read, tmp_path)

    def test_files_that_are_no_videos_can_be_left_out(self, tmp_path, folder, clips, capsys):
        for name in CLASSES:
            write_gif(tmp_path / name / "0.gif", clips[0])
        (tmp_path / "left" / "1.gif").write_bytes(b"GIF89a")
        assert len(ft.data.from_video_folder(tmp_path, on_invalid="drop")) == 2
        assert "1 with a file that is not a video (left/1.gif)" in capsys.readouterr().out


class TestTables:
    def test_paths_in_files_are_relative_to_the_file(self, folder):
        table = folder / "clips.csv"
        table.write_text("video,label\nleft/0.gif,left\nright/1.gif,right\n")
        examples = ft.data.from_csv(table, video="video")
        assert examples.columns["video"][1] == str(folder / "right" / "1.gif")
        lines = folder / "clips.jsonl"
        rows = [{"clip": f"{name}/{i}.gif", "label": name} for i, name in enumerate(CLASSES)]
        lines.write_text("\n".join(map(json.dumps, rows)))
        assert ft.data.from_jsonl(lines, video="clip").columns["video"][0] == str(
            folder / "left" / "0.gif"
        )

    def test_a_row_may_list_the_images_of_a_clip(self, tmp_path):
        for i in range(4):
            write_image(tmp_path / "a" / f"{i}.png", seed=i)
        rows = [{"frames": [f"a/{i}.png" for i in range(4)], "label": x} for x in CLASSES]
        (tmp_path / "clips.jsonl").write_text("\n".join(map(json.dumps, rows)))
        examples = ft.data.from_jsonl(tmp_path / "clips.jsonl", video="frames")
        assert examples.columns["video"][1][3] == str(tmp_path / "a" / "3.png")

    def test_arrays_bytes_and_lists(self, clips):
        as_array = ft.data.from_arrays(video=np.stack(clips), label=[*CLASSES, *CLASSES])
        assert len(as_array) == 4
        given = [clips[0], gif(clips[1]), list(clips[2])]
        mixed = ft.data.from_arrays(video=given, label=["a", "b", "a"])
        assert repr(mixed) == "<Examples arrays: 3 rows of video, label; labels a 2, b 1>"

    def test_pandas(self, clips):
        pd = pytest.importorskip("pandas")
        frame = pd.DataFrame({"clip": [gif(clip) for clip in clips], "label": [0, 1, 0, 1]})
        assert len(ft.data.from_pandas(frame, video="clip")) == 4


class TestErrors:
    def test_what_is_no_video(self, clips):
        told = message(DataTypeError, ft.data.from_arrays, video=[levels()])
        assert "must hold videos: paths, the bytes of files, arrays (frames, height, width" in told
        assert "found ndarray: row 0" in told
        told = message(DataError, ft.data.from_arrays, video=[clips[0], None], label=["a", "b"])
        assert "has rows without a video: row 1" in told
        told = message(DataError, ft.data.from_arrays, video=["no.mp4"])
        assert "names files that do not exist: 'no.mp4' (row 0)" in told

    def test_the_same_clip_with_two_labels_is_reported(self, clips, capsys):
        rows = [clips[0], list(clips[1]), clips[0], list(clips[1])]
        ft.data.from_arrays(video=rows, label=["a", "b", "b", "b"])
        assert "1 video stands there with different labels (2 rows)" in capsys.readouterr().out


class HuggingFaceVideos:
    """A data set of Hugging Face whose videos would be decoded if they were read at once."""

    def __init__(self, videos, features):
        self.videos, self.features = videos, features
        self.column_names = list(features)

    def cast_column(self, column, feature):
        return HuggingFaceVideos(self.videos, self.features | {column: feature})

    def __getitem__(self, column):
        if column == "label":
            return [1, 0]
        assert not self.features["clip"].decode, "all videos would be decoded at once"
        return self.videos


def test_a_data_set_of_hugging_face_gives_files(clips):
    video = dataclasses.make_dataclass("Video", [("decode", bool)])
    videos = [{"bytes": gif(clip), "path": None} for clip in clips[:2]]
    features = {"clip": video(True), "label": SimpleNamespace(names=["cat", "dog"])}
    examples = ft.data.from_huggingface(HuggingFaceVideos(videos, features), video="clip")
    assert examples.columns["video"] == [each["bytes"] for each in videos]
    assert examples.columns["label"] == ["dog", "cat"]


class LocalVideos(tfds.core.GeneratorBasedBuilder):
    """Two clips of different lengths."""

    VERSION = tfds.core.Version("1.0.0")
    CLIPS = {name: moving_squares(1, seed=0, frames=n)[0][0] for name, n in (("a", 3), ("b", 5))}

    def _info(self):
        features = {
            "video": tfds.features.Video(shape=(None, 32, 32, 3)),
            "label": tfds.features.ClassLabel(names=["a", "b"]),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for label, clip in self.CLIPS.items():
            yield label, {"video": list(clip), "label": label}


def test_videos_of_tensorflow_datasets(tmp_path):
    examples = ft.data.from_tfds(LocalVideos(data_dir=tmp_path), video="video")
    for clip, label in zip(*(examples.columns[name] for name in ("video", "label")), strict=True):
        np.testing.assert_array_equal(clip, LocalVideos.CLIPS[label])
