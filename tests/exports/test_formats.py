"""ONNX, LiteRT and OpenVINO give the numbers of the model, for any shape, without the library."""

import json

import numpy as np
import pytest
from conformance.harness import Case
from helpers_checkpoints import copy_checkpoint
from helpers_exports import ENGINES, require

import finetune_tf as ft
from finetune_tf.errors import ModelError
from finetune_tf.messages import quiet
from finetune_tf.model.exports.checking import random_inputs

TASKS = ("token-classification", "question-answering", "feature-extraction")
FAMILIES = ("distilbert", "roberta", "deberta", "modernbert")
CASES = [(family, "text-classification") for family in ("bert", *FAMILIES)]
CASES += [("bert", task) for task in TASKS]
# LiteRT leaves weights of less than 1,024 numbers as they are.
CONFIG = {"model_type": "bert", "vocab_size": 22, "hidden_size": 48, "num_hidden_layers": 2}
CONFIG |= {"num_attention_heads": 3, "intermediate_size": 64, "max_position_embeddings": 32}


@pytest.mark.slow
@pytest.mark.parametrize("format", ENGINES)
@pytest.mark.parametrize(("family", "task"), CASES)
def test_an_engine_gives_the_numbers_of_the_model(format, family, task, tmp_path):
    require(format)
    case = Case.stored(f"{family}/{task}", task)
    inputs = case.inputs
    with quiet():
        model = case.load()
        engine = ENGINES[format](model.export(tmp_path / "served", format=format))
    given = {tensor.name: inputs[tensor.name].astype("int32") for tensor in model.inputs}
    others = {name: np.tile(rows, (3, 1))[:, :5] for name, rows in given.items()}
    for batch in (given, others):
        found = engine(batch)
        wanted = model.task.named(model(batch))
        assert set(found) == set(wanted)
        for name, rows in wanted.items():
            np.testing.assert_allclose(found[name], rows, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "litert"])
def test_deberta_v2_without_its_grouped_convolution(format, tmp_path):
    require(format)
    source = Case.stored("deberta-v2/text-classification", "text-classification").folder
    with quiet():
        model = ft.load(copy_checkpoint(source, tmp_path / "plain", conv_kernel_size=None))
        engine = ENGINES[format](model.export(tmp_path / "served", format=format))
    inputs = random_inputs(model, 2, 9)
    np.testing.assert_allclose(engine(inputs)["logits"], model(inputs), atol=1e-4)


@pytest.mark.slow
def test_a_family_that_does_not_convert_is_named(tmp_path):
    require("onnx")
    model = Case.stored("deberta-v2/text-classification", "text-classification").load()
    told = "family deberta-v2.* Export it as 'tf_saved_model' or 'openvino'"
    with quiet(), pytest.raises(ModelError, match=told):
        model.export(tmp_path / "served", format="onnx")
    assert not (tmp_path / "served").exists()


@pytest.mark.slow
@pytest.mark.parametrize("format", ENGINES)
def test_int8_is_close_and_smaller(format, tiny_bert, tmp_path):
    require(format, int8=True)
    with quiet():
        model = ft.load(CONFIG, labels=["bad", "good"])
        model.tokenizer = ft.load(tiny_bert).tokenizer
        whole = model.export(tmp_path / "float32", format=format)
        small = model.export(tmp_path / "int8", format=format, quantize="int8")
        served = ft.load_exported(small)
    texts = ["a very good film", "the actor was dull and the story not long", "bad"]
    batch = model.tokenizer(texts, padding=True, return_tensors="np")
    wanted = np.asarray(model(batch))
    difference = np.abs(served.predict_on_batch(batch) - wanted)
    assert 0 < difference.max() < 0.1 * np.abs(wanted).max() + 0.01
    assert json.loads((small / "export.json").read_text())["quantize"] == "int8"
    assert served.name == f"{format} int8"
    assert size_of(small) < size_of(whole)


@pytest.mark.slow
def test_openvino_with_calibration_has_int8_activations(tiny_bert, tmp_path):
    openvino, _ = pytest.importorskip("openvino"), pytest.importorskip("nncf")
    words = ["a good film", "a bad film", "the actor was great", "a dull and long story"] * 8
    calibration = ft.data.from_arrays(words, ["good", "bad"] * 16)
    with quiet():
        model = ft.load(tiny_bert, labels=["bad", "good"])
        folder = model.export(
            tmp_path / "served", format="openvino", quantize="int8", calibration=calibration
        )
        weights_only = model.export(tmp_path / "weights", format="openvino", quantize="int8")
        found = ft.load_exported(folder).predict_on_batch(model.tokenizer(words[:4], **PADDED))
    kinds = [
        {node.get_type_name() for node in openvino.Core().read_model(each / FILE).get_ops()}
        for each in (folder, weights_only)
    ]
    assert "FakeQuantize" in kinds[0] and "FakeQuantize" not in kinds[1]
    wanted = np.asarray(model(model.tokenizer(words[:4], **PADDED)))
    assert np.abs(found - wanted).max() < 0.1 * np.abs(wanted).max() + 0.01


FILE = "openvino_model.xml"
PADDED = {"padding": True, "return_tensors": "np"}


def size_of(folder) -> int:
    graphs = ("model.onnx", "model.tflite", "openvino_model.bin")
    return sum((folder / name).stat().st_size for name in graphs if (folder / name).exists())
