"""Missing, incomplete and duplicate tensors are errors, or are reported."""

import numpy as np
import pytest
from helpers_checkpoints import copy_checkpoint, read_weights, reference, write_weights

import finetune_tf as ft
from finetune_tf.errors import CheckpointError

FOLDER, _ = reference("relu")
MASKED, _ = reference("fill-mask")
QUERY = "bert.encoder.layer.0.attention.self.query.weight"
NORM = "bert.embeddings.LayerNorm"
RANDOM = "These variables would be random: get the complete checkpoint, or check config.json"


def changed(tmp_path, change, source=FOLDER, **config):
    """Copies a checkpoint and changes its tensors."""
    folder = copy_checkpoint(source, tmp_path / "changed", **config)
    tensors = read_weights(folder)
    change(tensors)
    write_weights(folder, tensors)
    return folder


def test_no_tensors(tmp_path):
    folder = changed(tmp_path, dict.clear)
    with pytest.raises(CheckpointError, match="model.safetensors contains no tensors, so the mo"):
        ft.load(folder)


@pytest.mark.parametrize(
    ("names", "variable"),
    [
        (["classifier.bias"], "classifier/dense/bias"),
        (["classifier.weight"], "classifier/dense/kernel"),
        (["bert.pooler.dense.weight"], "pooler/dense/kernel"),
        (["bert.pooler.dense.weight", "bert.pooler.dense.bias"], "pooler/dense/kernel"),
    ],
)
def test_a_trained_head_must_be_complete(tmp_path, names, variable):
    folder = changed(tmp_path, lambda tensors: [tensors.pop(name) for name in names])
    message = f"lacks {len(names)} tensors .* example the one for {variable}; .*{RANDOM}, or repl"
    with pytest.raises(CheckpointError, match=message):
        ft.load(folder)


def test_an_incomplete_pooler_below_a_new_head(tmp_path):
    folder = changed(tmp_path, lambda tensors: tensors.pop("bert.pooler.dense.weight"))
    with pytest.raises(CheckpointError, match=f"the one for pooler/dense/kernel; .*{RANDOM}.$"):
        ft.load(folder, new_head=True)


def test_an_incomplete_masked_language_model_head(tmp_path):
    folder = changed(
        tmp_path, lambda tensors: tensors.pop("cls.predictions.transform.dense.bias"), MASKED
    )
    with pytest.raises(CheckpointError, match="example the one for transform/dense/bias; "):
        ft.load(folder, "fill-mask")


def test_a_head_for_another_number_of_labels_than_the_config(tmp_path):
    folder = copy_checkpoint(FOLDER, tmp_path / "two", id2label={"0": "no", "1": "yes"})
    message = r"has a head trained for 3 labels, but its config.json names 2: \['no', 'yes'\]"
    with pytest.raises(CheckpointError, match=message):
        ft.load(folder)


@pytest.mark.parametrize(
    ("known", "copy"),
    [(QUERY, QUERY.removeprefix("bert.")), (f"{NORM}.weight", f"{NORM}.gamma")],
)
def test_one_tensor_under_two_names(tmp_path, known, copy):
    folder = changed(tmp_path, lambda tensors: tensors.update({copy: tensors[known]}))
    assert ft.load(folder).labels == ("no", "maybe", "yes")
    tensors = read_weights(folder)
    write_weights(folder, tensors | {copy: tensors[known] + 1})
    message = "both store .*, but have different values, so one of them is wrong"
    with pytest.raises(CheckpointError, match=message) as error:
        ft.load(folder)
    assert known in str(error.value)
    assert copy in str(error.value)


@pytest.mark.parametrize(
    ("known", "copy", "variable"),
    [
        ("bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight", "word/emb"),
        ("cls.predictions.bias", "cls.predictions.decoder.bias", "vocabulary_bias/bias"),
    ],
)
def test_tied_tensors(tmp_path, known, copy, variable, capsys):
    folder = changed(tmp_path, lambda tensors: tensors.update({copy: tensors[known]}), MASKED)
    ft.load(folder, "fill-mask")
    assert "42 of 42 variables filled; saves" in capsys.readouterr().out
    tensors = read_weights(folder)
    write_weights(folder, tensors | {copy: tensors[known] + 1})
    message = f"{known} in .* and {copy} in .* both store the variable .*{variable}"
    with pytest.raises(CheckpointError, match=message):
        ft.load(folder, "fill-mask")


def test_quantized_weights_under_separate_names(tmp_path):
    def quantize(tensors):
        tensors[QUERY.replace("weight", "qweight")] = np.ones((3, 24), "int32")
        del tensors[QUERY]

    message = r"unused: \['.*query.qweight'\] with dtype int32, as in quantized checkpoints"
    with pytest.raises(CheckpointError, match=message):
        ft.load(changed(tmp_path, quantize))


def test_a_refused_model_leaves_nothing_behind(tmp_path):
    """Variables without a value are not initialized later, when Keras builds another model."""
    from keras.src.backend.common import global_state

    with pytest.raises(CheckpointError, match="classifier/dense/bias"):
        ft.load(changed(tmp_path, lambda tensors: tensors.pop("classifier.bias")))
    assert not global_state.get_global_attribute("uninitialized_variables")
