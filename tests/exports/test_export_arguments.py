"""What export and load_exported reject, before anything is written."""

import contextlib
import dataclasses
import json
import sys

import keras
import numpy as np
import pytest
from helpers_models import small_model
from helpers_tasks import small_task_model
from tokenizers import AddedToken

import finetune_tf as ft
from finetune_tf.checkpoints.tokenizers import load_tokenizer
from finetune_tf.errors import (
    ArgumentError,
    CheckpointError,
    DataTypeError,
    MissingExtraError,
    ModelError,
)
from finetune_tf.messages import quiet
from finetune_tf.model.exports.checking import check_decisions
from finetune_tf.model.exports.formats import FORMATS
from finetune_tf.model.exports.hard_texts import hard_texts


@pytest.fixture(scope="module")
def model(tiny_bert):
    return small_model(("bad", "good"), tiny_bert)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "pb"}, "one of tf_saved_model, openvino, onnx, litert, found 'pb'"),
        ({"format": ["onnx"]}, r"found \[.onnx.\]"),
        ({"format": "onnx", "quantize": "int4"}, "None or \"int8\", found 'int4'"),
        ({"format": "onnx", "quantize": True}, 'None or "int8", found True'),
        (
            {"quantize": "int8"},
            "'tf_saved_model' has no int8 weights. Formats with int8: 'openvino', 'onnx', 'litert'",
        ),
        ({"format": "openvino", "calibration": []}, 'write quantize="int8" as well'),
        (
            {"format": "onnx", "quantize": "int8", "calibration": []},
            "calibration= is for 'openvino'. The format 'onnx' has int8 weights, with activations",
        ),
        ({"format": "onnx", "strings": True}, "strings=True is for the format 'tf_saved_model'"),
        ({"format": "litert", "image_bytes": True}, "The model reads texts"),
    ],
)
def test_options_that_do_not_fit(options, message, model, tmp_path):
    with pytest.raises(ModelError, match=message):
        model.export(tmp_path / "served", **options)
    assert not (tmp_path / "served").exists()


def test_calibration_that_is_no_examples(model, tmp_path):
    with pytest.raises(DataTypeError, match="expects a few hundred Examples.*found list"):
        model.export(tmp_path, "openvino", quantize="int8", calibration=["a film"])


@pytest.mark.parametrize(
    ("format", "package", "options"),
    [
        ("openvino", "openvino", {}),
        ("onnx", "tf2onnx", {}),
        ("onnx", "onnxruntime", {}),
        ("openvino", "nncf", {"quantize": "int8"}),
        ("tf_saved_model", "tensorflow_text", {"strings": True}),
    ],
)
def test_missing_packages(format, package, options, model, tmp_path, monkeypatch):
    for present in {"openvino", "onnx", "tf2onnx", "onnxruntime"} - {package}:
        monkeypatch.setitem(sys.modules, present, json)  # looks like an installed package
    monkeypatch.setitem(sys.modules, package, None)
    extra = {"nncf": "int8", "tensorflow_text": "text"}.get(package, format)
    with pytest.raises(MissingExtraError, match=rf"pip install 'finetune-tf\[{extra}\]'"):
        model.export(tmp_path / "served", format, **options)
    assert not (tmp_path / "served").exists()


def test_tasks_that_an_engine_is_not_for(tiny_bert, tiny_decoder, tmp_path):
    words = small_task_model("words", tiny_bert)
    for format in ("onnx", "litert"):
        with pytest.raises(ModelError, match="the model is for fill-mask. Export it as 'tf_saved"):
            words.export(tmp_path, format)
    with quiet(), pytest.raises(ModelError, match="is for text-classification, .* text-generation"):
        ft.load(tiny_decoder).export(tmp_path, "onnx")
    with pytest.raises(ModelError, match="int8 is for text-classification, .* for fill-mask"):
        words.export(tmp_path, "openvino", quantize="int8")
    tags = small_task_model("tokens", tiny_bert)
    with pytest.raises(ModelError, match="strings=True is for text-classification, feature-ext"):
        tags.export(tmp_path, strings=True)


def test_tokenizers_that_a_graph_cannot_have(tiny_decoder, tmp_path):
    with quiet():
        model = ft.load(tiny_decoder, "text-classification", labels=["bad", "good"])
        with pytest.raises(ModelError, match="A graph cannot reproduce the tokenizer: its normal"):
            model.export(tmp_path, strings=True)


def test_keras_cannot_quantize_a_model(model):
    with pytest.raises(ModelError, match=r'model.export\(folder, format="openvino", quantize="int'):
        model.quantize("int8")
    before = [variable.dtype for variable in model.weights]
    assert set(before) == {"float32"}
    assert isinstance(model, keras.Model)


def test_folders_that_are_no_exports(tiny_bert, tmp_path):
    with pytest.raises(CheckpointError, match="missing does not exist"):
        ft.load_exported(tmp_path / "missing")
    with pytest.raises(CheckpointError, match="has no export.json, .* to load a checkpoint, use f"):
        ft.load_exported(tiny_bert)
    record = {"format": "pb", "task": "text-classification", "inputs": ["input_ids"]}
    (tmp_path / "export.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match="'pb', which this version does not know"):
        ft.load_exported(tmp_path)
    record |= {"format": "onnx", "task": "image-classification"}
    (tmp_path / "export.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match="is for image-classification. Run it with .* ONNX"):
        ft.load_exported(tmp_path)
    record |= {"task": "text-classification"}
    (tmp_path / "export.json").write_text(json.dumps(record))
    with pytest.raises(ArgumentError, match="'onnx' computes in float32, found dtype='bfloat16'"):
        ft.load_exported(tmp_path, dtype="bfloat16")


@pytest.mark.parametrize("sign", [1, -1])
def test_graphs_that_decide_otherwise_are_reported(model, tmp_path, sign):
    """The engine is replaced by the model itself, with and without the opposite decisions."""
    random = np.random.default_rng(0)
    batches = [{"input_ids": random.integers(5, 20, (1, 6)).astype("int32")} for _ in range(8)]
    engine = lambda inputs: {"logits": sign * np.asarray(model(inputs))}  # noqa: E731
    format = dataclasses.replace(FORMATS["openvino"], read=lambda folder, record: engine)
    message = "decides otherwise than the model for 8 of 8 outputs"
    expected = contextlib.nullcontext() if sign == 1 else pytest.warns(UserWarning, match=message)
    with expected:
        check_decisions(model, tmp_path, format, None, batches)


@pytest.mark.parametrize("shift", [0, 100])
@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("several labels", "decides otherwise than the model for [78] of 8 outputs"),
        ("number", r"they differ by 1e\+02, and those of the model have a standard deviation of"),
    ],
)
def test_labels_of_a_text_and_numbers_are_compared_too(case, message, tmp_path, shift):
    """Graphs whose outputs have the same order, but other labels or other numbers."""
    model, random = small_task_model(case), np.random.default_rng(0)
    batches = [{"input_ids": random.integers(5, 20, (1, 6)).astype("int32")} for _ in range(8)]
    engine = lambda inputs: {"logits": np.asarray(model(inputs)) + shift}  # noqa: E731
    format = dataclasses.replace(FORMATS["openvino"], read=lambda folder, record: engine)
    with pytest.warns(UserWarning, match=message) if shift else contextlib.nullcontext():
        check_decisions(model, tmp_path, format, None, batches)


@pytest.mark.slow
def test_a_folder_with_the_checkpoint_of_another_model(tiny_bert, tmp_path):
    """Its weights would get the labels of the exported model."""
    folder = tmp_path / "model"
    with quiet():
        ft.load(tiny_bert, labels=["bad", "good"]).save_pretrained(folder, dtype="float16")
        other = ft.load(tiny_bert, labels=["good", "bad"])
        with pytest.raises(ModelError, match="of another model, .* differs in 'id2label', 'label2"):
            other.export(folder)
        same = ft.load(folder)
        assert list(same.labels) == ["bad", "good"]
        same.export(folder)
        assert list(ft.load_exported(folder).labels) == list(ft.load(folder).labels)


def test_a_folder_with_a_graph_of_earlier_weights(tiny_bert, tmp_path, capsys):
    """`load_exported` would run the earlier weights with the new tokenizer."""
    folder = tmp_path / "model"
    model = ft.load(tiny_bert, labels=["bad", "good"])
    model.export(folder)
    model.save_pretrained(folder)
    assert "other weights" not in capsys.readouterr().out
    assert ft.load_exported(folder).labels == model.labels
    model.variables[-1].assign_add([1.0, 2.0])
    model.save_pretrained(folder)
    assert "has a graph with other weights, from an earlier export." in capsys.readouterr().out
    with pytest.raises(CheckpointError, match="no export.json"):
        ft.load_exported(folder)
    assert (folder / "saved_model.pb").exists()


def test_files_of_other_programs_are_kept(tiny_bert, tmp_path):
    """Even if their names begin like those of the files of an export or of a checkpoint."""
    model = ft.load(tiny_bert, labels=["bad", "good"])
    others = ["assets.md", "variables.txt", "openvino_model_notes.txt", "model-notes.txt"]
    others += ["chat_template_notes.txt", "tf_model_old", "pytorch_model.md"]
    stale = ["model-00001-of-00002.safetensors", "pytorch_model.bin.index.json", "tf_model.h5"]
    for name in others + stale:
        (tmp_path / name).write_text("x")
    (tmp_path / "model.onnx").write_text("an earlier export")
    model.export(tmp_path)
    assert {*others, *stale} <= {path.name for path in tmp_path.iterdir()}
    assert not (tmp_path / "model.onnx").exists()
    model.save_pretrained(tmp_path)
    found = {path.name for path in tmp_path.iterdir()}
    assert set(others) <= found and found.isdisjoint(stale)


def test_every_added_token_is_among_the_difficult_texts(tiny_bert):
    """A graph that reads texts has the pieces of the vocabulary, and no token beside them."""
    tokenizer = load_tokenizer(tiny_bert)
    tokenizer.add_tokens([AddedToken("<user>", special=True, normalized=False)])
    assert "a<user>b <user> <USER><user>" in hard_texts(tokenizer)
