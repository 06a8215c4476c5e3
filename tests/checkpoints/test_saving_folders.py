"""A save is whole or did not happen, keeps what is not its own, and says what the model is."""

import ctypes
import errno
import json
import os
import stat
import tempfile
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from helpers_checkpoints import BERTS, copy_checkpoint, read_weights

import finetune_tf as ft
from finetune_tf.errors import ArgumentError, CheckpointError, ModelError
from finetune_tf.model import saving

TESTS = Path(__file__).resolve().parents[1]
TF4 = TESTS / "fixtures" / "tf4" / "bert" / "text-classification"


@pytest.fixture
def model():
    return ft.load(BERTS / "relu")


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def bytes_of(folder):
    return {name: (folder / name).read_bytes() for name in files(folder)}


def test_what_a_classifier_writes(tiny_bert, tmp_path, capsys):
    model = ft.load(tiny_bert, labels=["bad", "good"], dropout=0.2)
    capsys.readouterr()
    assert model.save_pretrained(tmp_path / "new" / "out") == tmp_path / "new" / "out"
    assert capsys.readouterr().out == (
        f"Saved {tmp_path}/new/out; opens in transformers.BertForSequenceClassification.\n"
        "The head of this model (classifier) is not trained: its weights are the random initial "
        "values, so its predictions are meaningless.\n"
    )
    out = tmp_path / "new" / "out"
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= set(files(out))
    assert "modules.json" not in files(out)
    config = json.loads((out / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert config["model_type"] == "bert"
    assert config["id2label"] == {"0": "bad", "1": "good"}
    assert config["label2id"] == {"bad": 0, "good": 1}
    assert config["problem_type"] == "single_label_classification"
    assert config["hidden_dropout_prob"] == config["classifier_dropout"] == 0.2
    assert config["hidden_size"] == 24


def test_what_a_mean_pooled_classifier_writes(tiny_bert, tmp_path, capsys):
    model = ft.load(tiny_bert, labels=["bad", "good"], pooling="mean")
    out = model.save_pretrained(tmp_path / "out")
    assert "opens in sentence_transformers.SentenceTransformer." in capsys.readouterr().out
    assert json.loads((out / "config.json").read_text())["architectures"] == ["BertModel"]
    modules = json.loads((out / "modules.json").read_text())
    assert [module["path"] for module in modules] == ["", "1_Pooling", "2_Dense"]
    assert {"1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors"} <= set(
        files(out)
    )
    limits = json.loads((out / "sentence_bert_config.json").read_text())
    assert limits["max_seq_length"] == 32
    assert not any(name.startswith("bert.") for name in read_weights(out))


def test_everybody_may_read_it(tiny_bert, tmp_path):
    out = ft.load(tiny_bert, labels=2, pooling="cls").save_pretrained(tmp_path / "out")
    modes = {path.is_dir(): set() for path in (out, out / "config.json")}
    for path in (out, *out.rglob("*")):
        modes[path.is_dir()].add(stat.S_IMODE(path.stat().st_mode))
    assert modes == {True: {0o755}, False: {0o644}}


def test_a_private_folder_stays_private(model, tmp_path):
    out = model.save_pretrained(tmp_path / "out")
    out.chmod(0o700)
    model.save_pretrained(out)
    assert stat.S_IMODE(out.stat().st_mode) == 0o700


def test_the_card(tiny_bert, tmp_path):
    model = ft.load(tiny_bert, labels=["bad", "good"])
    ft.train_only(model, ft.select.head())
    model.compile(**ft.presets.cross_entropy(learning_rate=2e-5), run_eagerly=True)
    ids = np.asarray([[2, 5, 6, 3], [2, 7, 8, 3]])
    model.fit({"input_ids": ids}, np.asarray([0, 1]), epochs=2, verbose=0)
    model.info.record["data"] = "reviews (2 texts)"
    model.info.record["result"] = {
        "name": "test.csv",
        "texts": 1200,
        "metrics": {"accuracy": 0.91234},
        "baseline": {"name": "tfidf", "metrics": {"accuracy": 0.85}},
        "difference": {"metric": "accuracy", "value": 0.0623, "low": 0.04, "high": 0.085},
    }
    out = model.save_pretrained(tmp_path / "out", licence="MIT")
    lines = (out / "README.md").read_text().splitlines()
    for line in (
        "pipeline_tag: text-classification",
        f"- **checkpoint**: {tiny_bert.parent.name}/tiny-bert",
        "- **task**: text-classification, single_label_classification",
        "- **labels**: bad, good",
        "- **pooling**: pooler",
        "- **data**: reviews (2 texts)",
        "- **licence**: MIT",
        "Measured on test.csv (1,200 texts).",
        "| metric | fine-tuned | tfidf |",
        "| accuracy | 0.9123 | 0.8500 |",
        "Difference in accuracy: +0.062 (95% interval +0.040 to +0.085, paired bootstrap).",
        "It opens in `transformers.BertForSequenceClassification`:",
    ):
        assert line in lines
    (fit,) = [line for line in lines if line.startswith("| 1 |")]
    assert "| 50 of " in fit  # 24 weights and a bias for each of two labels
    assert "| 2 | 1 | AdamW | 2e-05, warm-up and linear decay |" in fit
    assert "accuracy" in fit
    assert "loss" in fit


def test_into_the_folder_it_came_from(tmp_path, capsys):
    folder = copy_checkpoint(TF4, tmp_path / "mine")
    (folder / "notes.txt").write_text("kept")
    (folder / "plots").mkdir()
    (folder / "plots" / "loss.svg").write_text("<svg/>")
    before = ft.load(folder)
    before.save_pretrained(folder)
    assert "The checkpoint has no tokenizer, so none is saved." in capsys.readouterr().out
    assert files(folder) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "notes.txt",
        "plots/loss.svg",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    for ours, theirs in zip(before.weights, ft.load(folder).weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_another_pooling_leaves_no_modules_behind(tiny_bert, tmp_path):
    ft.load(tiny_bert, labels=2, pooling="mean").save_pretrained(tmp_path / "out")
    model = ft.load(tiny_bert, labels=["a", "b", "c"])
    model.save_pretrained(tmp_path / "out")
    again = ft.load(tmp_path / "out")
    assert again.info.pooling == "pooler"
    assert again.labels == ("a", "b", "c")


def test_a_link_stays_a_link(model, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert model.save_pretrained(tmp_path / "link") == tmp_path / "real"
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "config.json").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


def test_where_folders_cannot_be_swapped_in_one_step(model, tmp_path, monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    out = tmp_path / "out"
    model.save_pretrained(out)
    (out / "notes.txt").write_text("kept")
    model.save_pretrained(out, note="second")
    assert "- **note**: second" in (out / "README.md").read_text()
    assert (out / "notes.txt").read_text() == "kept"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_below_a_file_or_onto_one(model, tmp_path):
    (tmp_path / "file").write_text("text")
    with pytest.raises(
        CheckpointError, match=r"file/out cannot be written \(File exists\). Choose"
    ):
        model.save_pretrained(tmp_path / "file" / "out")
    with pytest.raises(CheckpointError, match="file is a file, but must be a folder"):
        model.save_pretrained(tmp_path / "file")


def test_the_current_folder_is_not_replaced(model, tmp_path, monkeypatch):
    (tmp_path / "here" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" / "below")
    for folder in (".", "..", tmp_path / "here"):
        with pytest.raises(
            CheckpointError, match="is the current working directory or a parent of it, so it"
        ):
            model.save_pretrained(folder)
    assert model.save_pretrained("out") == tmp_path / "here" / "below" / "out"


def test_no_permission(model, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(CheckpointError, match=r"out cannot be written \(Permission denied\). Choo"):
        model.save_pretrained(tmp_path / "out")


def test_a_full_disk_leaves_what_was_there(model, tmp_path):
    resource = pytest.importorskip("resource")
    out = model.save_pretrained(tmp_path / "out")
    before = bytes_of(out)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # bytes a file may have
    try:
        with pytest.raises(
            CheckpointError, match=r"out cannot be written \(.*\). Existing files are unchanged"
        ):
            model.save_pretrained(out, note="second")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert bytes_of(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("write", ["save_pretrained", "export"])
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_not_written(model, tmp_path, write, number):
    folder = model.save_pretrained(tmp_path / "model")
    before = bytes_of(folder)
    kernel = model.get_layer("block_0").weights[-1]
    ft.train_only(model, ft.select.head())  # what is frozen is looked at, too
    kernel.assign(np.full(kernel.shape, number))
    message = (
        "wrote nothing: 1 of the model's 41 variables contain NaN or infinity, for example "
        f"{kernel.path}"
    )
    with pytest.raises(ModelError, match=message):
        getattr(model, write)(folder)
    assert bytes_of(folder) == before


@pytest.mark.parametrize(
    "option",
    [
        {"push_to_hub": True},
        {"safe_serialization": False},
        {"torch_dtype": "float16"},
        {"shard": "1GB"},
    ],
)
def test_options_of_other_libraries_are_no_lines_of_the_card(model, tmp_path, option):
    (name,) = option
    with pytest.raises(ArgumentError, match=f"save_pretrained has no option {name!r}. It has"):
        model.save_pretrained(tmp_path / "out", **option)
    assert not any(tmp_path.iterdir())


def test_a_variable_without_a_name_is_not_lost_in_silence(model, tmp_path):
    with keras.name_scope("block_0"), keras.name_scope("adapter"):
        stranger = keras.Variable(np.ones((2, 2)), name="kernel")
    extended = SimpleNamespace(
        info=model.info,
        task=model.task,
        config=model.config,
        tokenizer=None,
        target_tokenizer=None,
        weights=[*model.weights, stranger],
        _layers=[],
    )
    message = "The variable block_0/adapter/kernel has no name in the checkpoint format; it would"
    with pytest.raises(CheckpointError, match=message):
        saving.save_pretrained(extended, tmp_path / "out")
    assert not any(tmp_path.iterdir())
