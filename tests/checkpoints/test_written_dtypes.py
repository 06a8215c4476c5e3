"""A model is saved in the dtype of its checkpoint's own file, or in the one chosen."""

import json

import keras
import ml_dtypes
import numpy as np
import pytest
from helpers_checkpoints import (
    copy_checkpoint,
    inputs_of,
    logits,
    read_weights,
    reference,
    write_weights,
)

import finetune_tf as ft
from finetune_tf.errors import ArgumentError, ModelError
from finetune_tf.model.model_info import ModelInfo
from finetune_tf.recipe.recipe import FinetuneResult
from finetune_tf.training.untrained import untrained_layers

FOLDER, EXPECTED = reference("relu")
QUERY = "bert.encoder.layer.0.attention.self.query.weight"
HALVES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def in_dtype(folder, weight_dtype, **config):
    """Copies the checkpoint with weights of another dtype."""
    copied = copy_checkpoint(FOLDER, folder, **config)
    write_weights(copied, {k: v.astype(weight_dtype) for k, v in read_weights(copied).items()})
    return copied


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """Checkpoints in float16 and bfloat16, with the old config key torch_dtype."""
    root = tmp_path_factory.mktemp("halves")
    return {
        name: in_dtype(root / name, dtype, torch_dtype=name, dtype=None)
        for name, dtype in HALVES.items()
    }


def types(folder):
    return {tensor.dtype.name for tensor in read_weights(folder).values()}


def config(folder):
    return json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize("dtype", HALVES)
def test_the_dtype_of_the_file_is_retained(halves, tmp_path, dtype, capsys):
    model = ft.load(halves[dtype])
    assert f"saves for transformers.BertForSequenceClassification in {dtype};" in (
        capsys.readouterr().out
    )
    assert {variable.dtype for variable in model.weights} == {"float32"}
    out = model.save_pretrained(tmp_path / "out")
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"Saved {out} in {dtype}; opens in transformers.BertForSequenceClassification."
    )
    assert config(out)["torch_dtype"] == dtype
    assert "dtype" not in config(out)
    before, after = read_weights(halves[dtype]), read_weights(out)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype
        np.testing.assert_array_equal(after[name], tensor)


def test_another_dtype_can_be_chosen(halves, tmp_path, capsys):
    model = ft.load(halves["float16"])
    out = model.save_pretrained(tmp_path / "out", dtype="float32")
    assert f"Saved {out}; opens in" in capsys.readouterr().out
    assert types(out) == {"float32"}
    assert config(out)["torch_dtype"] == "float32"
    out = model.save_pretrained(out, dtype="bfloat16", licence="MIT")
    assert f"Saved {out} in bfloat16; opens in" in capsys.readouterr().out
    assert types(out) == {"bfloat16"}
    assert config(out)["torch_dtype"] == "bfloat16"
    assert "- **licence**: MIT" in (out / "README.md").read_text()
    assert types(model.save_pretrained(out)) == {"float16"}  # the choice applies to one save only


def test_the_dtype_is_written_into_the_config(tmp_path):
    silent = in_dtype(tmp_path / "silent", np.float16, dtype=None)
    assert config(ft.load(silent).save_pretrained(tmp_path / "a"))["dtype"] == "float16"
    silent = in_dtype(tmp_path / "wide", np.float32, dtype=None)
    assert config(ft.load(silent).save_pretrained(tmp_path / "b"))["dtype"] == "float32"
    wrong = in_dtype(tmp_path / "wrong", np.float32, dtype="bfloat16", torch_dtype="float16")
    written = config(ft.load(wrong).save_pretrained(tmp_path / "c"))
    assert (written["dtype"], written["torch_dtype"]) == ("float32", "float32")


@pytest.mark.parametrize("others", [np.float32, np.float64, ml_dtypes.bfloat16])
def test_a_file_of_several_dtypes_is_saved_in_float32(tmp_path, others):
    folder = in_dtype(tmp_path / "mixed", np.float16)
    tensors = read_weights(folder)
    write_weights(folder, tensors | {QUERY: tensors[QUERY].astype(others)})
    assert types(ft.load(folder).save_pretrained(tmp_path / "out")) == {"float32"}


def test_dtypes_of_unused_tensors_are_ignored(tmp_path):
    folder = in_dtype(tmp_path / "half", np.float16)
    more = {"bert.embeddings.position_ids": np.arange(12)[None], "other": np.ones(2, "float32")}
    write_weights(folder, read_weights(folder) | more)
    assert types(ft.load(folder).save_pretrained(tmp_path / "out")) == {"float16"}


@pytest.mark.parametrize("pooling", ["pooler", "mean"])
def test_a_new_head_has_the_dtype_of_the_file_and_is_marked_as_untrained(
    halves, tmp_path, pooling, capsys
):
    model = ft.load(halves["float16"], labels=["a", "b"], pooling=pooling, new_head=True)
    out = model.save_pretrained(tmp_path / "out")
    assert types(out) == {"float16"}
    if pooling == "mean":
        assert types(out / "2_Dense") == {"float16"}
    assert untrained_layers(model) == ["classifier"]
    again = ft.load(out)
    assert untrained_layers(again) == ["classifier"]
    assert again.info.file_dtype == "float16"
    again.get_layer("classifier").weights[0].assign_add(np.ones((24, 2)))
    assert untrained_layers(ft.load(again.save_pretrained(out))) == []


def test_trained_weights_are_rounded_to_the_dtype_of_the_file(halves, tmp_path):
    model = ft.load(halves["bfloat16"])
    for variable in model.weights:
        variable.assign_add(np.full(variable.shape, 1 / 3))
    again = ft.load(model.save_pretrained(tmp_path / "out"))
    for ours, theirs in zip(model.weights, again.weights, strict=True):
        rounded = np.asarray(ours).astype(ml_dtypes.bfloat16).astype("float32")
        np.testing.assert_array_equal(rounded, theirs)


@pytest.mark.parametrize("dtype", HALVES)
def test_values_that_overflow_the_dtype_are_an_error(halves, tmp_path, dtype):
    model = ft.load(halves[dtype])
    out = model.save_pretrained(tmp_path / "out")
    before = (out / "model.safetensors").read_bytes()
    largest = 70_000 if dtype == "float16" else 3.4e38
    kernel = model.get_layer("block_0").attention.query.kernel
    kernel.assign(np.pad([[largest]], (0, 23)))
    message = (
        rf"Nothing was saved: the tensor {QUERY} contains values up to {largest:.3g}, which are "
        rf"too large for the file's dtype {dtype}. Choose another dtype, as in save_pretrained\("
    ).replace("+", r"\+")
    with pytest.raises(ModelError, match=message):
        model.save_pretrained(out)
    assert (out / "model.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    again = ft.load(model.save_pretrained(out, dtype="float32"))
    np.testing.assert_array_equal(again.get_layer("block_0").attention.query.kernel, kernel)


def test_the_dtype_is_stored_in_keras_files_and_runs(halves, tmp_path, capsys):
    model = ft.load(halves["float16"])
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert types(again.save_pretrained(tmp_path / "out")) == {"float16"}
    FinetuneResult(again, {}, None, {}).save(tmp_path / "run")
    assert types(tmp_path / "run" / "checkpoint") == {"float16"}
    assert f"Saved {tmp_path}/run/checkpoint in float16; opens in" in capsys.readouterr().out


def test_a_keras_file_of_an_earlier_version_is_saved_in_float32(halves):
    values = ft.load(halves["float16"]).info.to_dict()
    del values["file_dtype"]
    assert ModelInfo.from_dict(values).file_dtype == "float32"


def test_a_new_model_is_saved_in_float32(tmp_path):
    content = config(FOLDER) | {"dtype": "bfloat16"}
    out = ft.load(content).save_pretrained(tmp_path / "out")
    assert types(out) == {"float32"}
    assert config(out)["dtype"] == "float32"


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16"])
def test_the_dtype_policy_of_the_model_is_ignored(halves, tmp_path, policy):
    assert types(ft.load(FOLDER, dtype=policy).save_pretrained(tmp_path / "a")) == {"float32"}
    model = ft.load(halves["float16"], dtype=policy)
    assert types(model.save_pretrained(tmp_path / "b")) == {"float16"}


@pytest.mark.parametrize("dtype", ["int8", "float64", "half", 16, "mixed_bfloat16", ""])
def test_unsupported_dtypes(halves, tmp_path, dtype):
    message = (
        "dtype is the dtype of the written weights, one of float32, float16, bfloat16, or None"
    )
    with pytest.raises(ArgumentError, match=message):
        ft.load(halves["float16"]).save_pretrained(tmp_path / "out", dtype=dtype)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_transformers_opens_it_in_that_dtype(tmp_path, dtype, key):
    torch = pytest.importorskip("torch")
    from transformers import BertForSequenceClassification

    keys = {"dtype": None, "torch_dtype": None} | {key: dtype}
    model = ft.load(in_dtype(tmp_path / "half", HALVES[dtype], **keys))
    out = model.save_pretrained(tmp_path / "out")
    theirs, report = BertForSequenceClassification.from_pretrained(out, output_loading_info=True)
    assert not any(report.values()), report
    assert theirs.dtype == getattr(torch, dtype)
    inputs = {name: torch.from_numpy(array) for name, array in inputs_of(EXPECTED).items()}
    with torch.no_grad():
        output = theirs.float().eval()(**inputs).logits
    np.testing.assert_allclose(logits(model, inputs_of(EXPECTED)), output, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", HALVES)
def test_sentence_transformers_opens_it_in_that_dtype(tiny_bert, tmp_path, dtype):
    torch = pytest.importorskip("torch")
    library = pytest.importorskip("sentence_transformers")
    model = ft.load(tiny_bert, labels=["a", "b", "c"], pooling="mean")
    out = model.save_pretrained(tmp_path / "out", dtype=dtype)
    theirs = library.SentenceTransformer(str(out), device="cpu")
    assert {parameter.dtype for parameter in theirs.parameters()} == {getattr(torch, dtype)}
    texts = ["the film was very good", "bad"]
    inputs = dict(ft.load(out).tokenizer(texts, padding=True, return_tensors="np"))
    found = theirs.float().encode(texts)
    np.testing.assert_allclose(logits(ft.load(out), inputs), found, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_pickle_of_pytorch_in_float16(tmp_path):
    torch = pytest.importorskip("torch")
    folder = copy_checkpoint(FOLDER, tmp_path / "pickle")
    tensors = {k: torch.from_numpy(v).half() for k, v in read_weights(folder).items()}
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    assert types(ft.load(folder).save_pretrained(tmp_path / "out")) == {"float16"}
