"""The command line for models of images: folders of classes, files of pictures."""

import io
import json
import sys

import pytest
from helpers_images import TINY_VIT, write_classes, write_image
from helpers_videos import moving_squares, write_mp4

import finetune_tf as ft
from finetune_tf import cli
from finetune_tf.cli.reading import examples, files_of, splits
from finetune_tf.errors import DataError

# The small model is random, so that it learns with a rate that would ruin a trained one.
pytestmark = pytest.mark.filterwarnings("ignore:A learning rate of 0.01 usually ruins")


def run(monkeypatch, *arguments) -> int:
    """Runs the command line in this process; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["finetune-tf", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code


@pytest.mark.slow
def test_train_evaluate_predict(tmp_path, monkeypatch, capsys):
    data = write_classes(tmp_path / "photos", 8, ("red", "blue", "green"))
    options = ["--task", "image-classification", "--epochs", 6, "--batch-size", 4]
    options += ["--learning-rate", 0.01, "--verbose", 0, "--validation", data, "--test", data]
    output = tmp_path / "run"
    assert run(monkeypatch, "train", TINY_VIT, data, "--output", output, *options) == 0
    printed = capsys.readouterr().out
    assert "photos: 24 images" in printed and f"The run is saved in {output}." in printed

    checkpoint = output / "checkpoint"
    assert run(monkeypatch, "evaluate", checkpoint, data) == 0
    assert "accuracy" in capsys.readouterr().out

    loose = write_image(tmp_path / "a.png", "green", 99)
    assert run(monkeypatch, "predict", checkpoint, loose, data / "red", data / "blue") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    expected = [loose, *sorted((data / "red").iterdir()), *sorted((data / "blue").iterdir())]
    assert [line["image"] for line in lines] == list(map(str, expected))
    assert [line["label"] for line in lines] == ["green"] + ["red"] * 8 + ["blue"] * 8
    assert set(lines[0]["probabilities"]) == {"red", "blue", "green"}

    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{loose}\n\n"))
    assert run(monkeypatch, "predict", checkpoint) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0]["label"] == "green" and lines[1] == {"image": ""}


def test_folders_of_splits(tmp_path, monkeypatch):
    for split in ("train", "valid", "Test"):
        write_classes(tmp_path / split, 2)
    columns = {"label": "label"}
    found = splits(str(tmp_path), columns)
    assert [part.name for part in found] == ["train", "valid", "Test"]
    assert [len(part) for part in found] == [4, 4, 4]
    assert examples(str(tmp_path), "test", {**columns, "labels": found[0].labels}).name == "Test"
    read = ft.data.from_image_folder
    with pytest.raises(
        DataError, match=r"of splits and not of classes: Test, train, valid\. Read e"
    ):
        read(tmp_path)
    (tmp_path / "Test").rename(tmp_path / "blue")
    assert list(read(tmp_path).labels) == ["blue", "train", "valid"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reviews").mkdir()
    assert "text" in examples("reviews", "train", columns).columns  # those of the library


@pytest.mark.parametrize(
    ("columns", "split", "message"),
    [
        ({"text": "review"}, "train", "--text has no meaning for .*: leave it out, or list the im"),
        ({"text_pair": "b"}, "train", "--text-pair has no meaning for"),
        ({"label": "kind"}, "train", "--label has no meaning for"),
        ({"problem_type": "regression"}, "train", "--problem-type has no meaning for"),
        ({}, "test", "has no folder for test data, only train, val. Name the folder with the fol"),
    ],
)
def test_options_without_a_meaning_for_folders(columns, split, message, tmp_path):
    for folder in ("train", "val"):
        write_classes(tmp_path / folder, 1)
    with pytest.raises(DataError, match=message):
        examples(str(tmp_path), split, {"label": "label", **columns})


def test_what_cannot_be_predicted(tmp_path, monkeypatch, capsys):
    assert files_of(["a.png", ""]) == ["a.png", ""]
    with pytest.raises(DataError, match="has no images: files that end in .jpg"):
        files_of([str(tmp_path)])
    (tmp_path / "text.png").write_text("no image")
    for given, message in (
        (tmp_path / "text.png", "text.png' in row 0 of images cannot be used: it is not an image"),
        ("a good film", "names files that do not exist: 'a good film'"),
    ):
        assert run(monkeypatch, "predict", TINY_VIT, given) == 2
        assert message in capsys.readouterr().err


def test_export_of_a_graph_that_reads_files(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(
        ft.FineTuneModel, "export", lambda model, *args, **options: given.append((args, options))
    )
    assert run(monkeypatch, "export", TINY_VIT, tmp_path / "served", "--image-bytes") == 0
    options = {"quantize": None, "calibration": None, "strings": False, "image_bytes": True}
    assert given == [((tmp_path / "served", "tf_saved_model"), options)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This fit takes only")
def test_videos(tmp_path, monkeypatch, capsys):
    pytest.importorskip("av")
    clips, classes = moving_squares(4, seed=0)
    for i, (clip, name) in enumerate(zip(clips, classes, strict=True)):
        write_mp4(tmp_path / "clips" / name / f"{i}.mp4", clip)
    data, output = tmp_path / "clips", tmp_path / "run"
    options = ["--task", "video-classification", "--epochs", 1, "--batch-size", 4, "--verbose", 0]
    options += ["--test", data]
    assert run(monkeypatch, "train", TINY_VIT, data, "--output", output, *options) == 0
    assert "clips: 8 videos" in capsys.readouterr().out
    checkpoint, files = output / "checkpoint", sorted((data / "left").iterdir())
    assert run(monkeypatch, "predict", checkpoint, data / "left") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["video"] for line in lines] == list(map(str, files))
    assert run(monkeypatch, "predict", checkpoint, "--video", files[0]) == 0
    assert json.loads(capsys.readouterr().out)["label"] == lines[0]["label"]
    with pytest.raises(DataError, match="has no videos: files that end in .mp4"):
        files_of([str(tmp_path / "run")], "video")
