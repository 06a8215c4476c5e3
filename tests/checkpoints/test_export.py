"""An exported model gives the model's own numbers, without finetune_tf."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from helpers_models import write_checkpoint

import finetune_tf as ft
from finetune_tf.errors import MissingExtraError, ModelError

IDS = np.array([[2, 6, 7, 3], [2, 9, 3, 0]], "int32")
INPUTS = {"input_ids": IDS, "attention_mask": (IDS > 0).astype("int32"), "token_type_ids": 0 * IDS}

# Serving has TensorFlow and nothing else.
SERVE = """
import json, sys
sys.modules["keras"] = sys.modules["finetune_tf"] = None
import tensorflow as tf
served = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
given = {name: tf.constant(rows, tf.int32) for name, rows in json.loads(sys.argv[2]).items()}
print(json.dumps({name: rows.numpy().tolist() for name, rows in served(**given).items()}))
"""


@pytest.fixture
def model(tiny_bert):
    return ft.load(tiny_bert, labels=["bad", "good"])


@pytest.mark.slow
def test_tensorflow_serves_it_alone(model, tmp_path):
    folder = model.export(tmp_path / "served")
    given = json.dumps({name: rows.tolist() for name, rows in INPUTS.items()})
    done = subprocess.run(
        [sys.executable, "-c", SERVE, folder, given], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert set(found) == {"logits"}
    np.testing.assert_allclose(found["logits"], model(INPUTS), atol=1e-6)
    assert json.loads((folder / "config.json").read_text())["id2label"] == {"0": "bad", "1": "good"}
    assert (folder / "tokenizer.json").exists()


@pytest.mark.slow
def test_any_shape_is_served(model, tmp_path):
    served = tf.saved_model.load(model.export(tmp_path / "served")).signatures["serving_default"]
    longer = {name: np.tile(rows, (3, 4)) for name, rows in INPUTS.items()}
    found = served(**{name: tf.constant(rows) for name, rows in longer.items()})["logits"]
    np.testing.assert_allclose(found, model(longer), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "names"),
    [
        ("question-answering", {"start_logits", "end_logits"}),
        ("token-classification", {"logits"}),
        ("feature-extraction", {"sentence_embedding"}),
    ],
)
def test_outputs_have_the_names_that_hugging_face_gives_them(task, names, tiny_bert, tmp_path):
    model = ft.load(tiny_bert, task)
    served = tf.saved_model.load(model.export(tmp_path / "served")).signatures["serving_default"]
    assert set(served.structured_outputs) == names


@pytest.mark.slow
def test_a_model_of_less_precision_is_served_in_float32(tiny_bert, tmp_path):
    model = ft.load(tiny_bert, labels=2, dtype="mixed_bfloat16")
    exact = ft.load(tiny_bert, labels=2)
    exact.set_weights(model.get_weights())
    served = tf.saved_model.load(model.export(tmp_path / "served")).signatures["serving_default"]
    found = served(**{name: tf.constant(rows) for name, rows in INPUTS.items()})["logits"]
    np.testing.assert_allclose(found, exact(INPUTS), atol=1e-6)


@pytest.mark.slow
def test_a_checkpoint_in_the_same_folder_stays(model, tmp_path):
    folder = model.save_pretrained(tmp_path / "both")
    assert model.export(folder) == folder
    np.testing.assert_array_equal(ft.load(folder)(INPUTS), model(INPUTS))
    tf.saved_model.load(folder)


@pytest.mark.slow  # for the package openvino, which the everyday tests do without
@pytest.mark.parametrize("task", ["text-classification", "question-answering"])
def test_openvino_gives_the_same_numbers(task, tmp_path):
    openvino = pytest.importorskip("openvino")
    model = ft.load(write_checkpoint(tmp_path / "bert", hidden_act="gelu"), task)
    folder = model.export(tmp_path / "served", format="openvino")
    engine = openvino.Core().compile_model(
        folder / "openvino_model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    assert {name for port in engine.inputs for name in port.names} == set(INPUTS)
    found = engine(INPUTS).to_dict()
    outputs = {name: rows for port, rows in found.items() for name in port.names}
    for name, wanted in model.task.named(model(INPUTS)).items():
        np.testing.assert_allclose(outputs[name], wanted, atol=1e-5)


def test_what_cannot_be_exported(model, tmp_path, monkeypatch):
    with pytest.raises(ModelError, match="one of tf_saved_model, openvino, onnx, litert, found"):
        model.export(tmp_path / "served", format="pb")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'finetune-tf\[openvino\]'"):
        model.export(tmp_path / "served", format="openvino")
    assert not (tmp_path / "served").exists()


@pytest.mark.slow
def test_a_model_made_from_a_config_has_no_tokenizer_to_export(tmp_path, capsys):
    config = {"model_type": "bert", "vocab_size": 30, "hidden_size": 12, "num_hidden_layers": 1}
    config |= {"num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 20}
    model = ft.load(config, labels=["bad", "good"])
    folder = model.export(tmp_path / "served")
    assert "The checkpoint has no tokenizer, so none is saved." in capsys.readouterr().out
    served = tf.saved_model.load(folder).signatures["serving_default"]
    found = served(**{name: tf.constant(rows) for name, rows in INPUTS.items()})["logits"]
    np.testing.assert_allclose(found, model(INPUTS), atol=1e-6)
    assert not (folder / "tokenizer.json").exists()
