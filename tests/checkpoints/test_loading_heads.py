"""Which head `load` gives: a trained one where the labels fit, a new one where asked."""

import json

import numpy as np
import pytest
from helpers_checkpoints import copy_checkpoint, inputs_of, logits, read_weights, reference
from safetensors.numpy import save_file

import finetune_tf as ft
from finetune_tf.errors import ArgumentError, CheckpointError, ModelError

FOLDER, EXPECTED = reference("relu")  # its labels are no, maybe, yes
UNNAMED, _ = reference("gelu")  # five labels without names


def head_of(model) -> np.ndarray:
    """As PyTorch stores it."""
    return np.asarray(model.get_layer("classifier").dense.kernel).T


def stored_head(folder=FOLDER):
    return read_weights(folder)["classifier.weight"]


@pytest.mark.parametrize(
    "labels",
    [None, 3, ["no", "maybe", "yes"], ["yes", "no", "maybe"], ft.Labels(["yes", "maybe", "no"])],
)
def test_labels_that_fit_keep_the_order_of_the_checkpoint(labels):
    model = ft.load(FOLDER, labels=labels)
    assert model.labels == ("no", "maybe", "yes")
    assert model.labels.problem_type == "single_label_classification"
    assert model.config["label2id"] == {"no": 0, "maybe": 1, "yes": 2}
    np.testing.assert_array_equal(head_of(model), stored_head())


def test_the_line_of_a_trained_head(capsys):
    ft.load(FOLDER)
    assert capsys.readouterr().out == (
        f"Loaded {FOLDER}: 41 of 41 variables filled; the family's own pooler; saves for "
        "transformers.BertForSequenceClassification; task text-classification, by its class "
        "BertForSequenceClassification.\n"
    )


@pytest.mark.parametrize("labels", [2, ["no", "yes"], ["a", "b", "c"], ["no", "maybe", "yes", "?"]])
def test_labels_that_do_not_fit(labels):
    message = (
        r"has a head trained for the labels \['no', 'maybe', 'yes'\], but \[.*\] were requested. "
        r"Leave labels out to keep that head, or replace it with load\(…, new_head=True\)."
    )
    with pytest.raises(CheckpointError, match=message):
        ft.load(FOLDER, labels=labels)


def test_names_that_say_nothing_give_way():
    model = ft.load(UNNAMED, labels=["a", "b", "c", "d", "e"])
    assert model.labels == ("a", "b", "c", "d", "e")
    np.testing.assert_array_equal(head_of(model), stored_head(UNNAMED))


@pytest.mark.parametrize("labels", [None, ["a", "b"]])
def test_a_new_head(labels, capsys):
    model = ft.load(FOLDER, labels=labels, new_head=True)
    assert model.labels == tuple(labels or ("no", "maybe", "yes"))
    assert head_of(model).shape == (len(model.labels), 24)
    assert np.abs(head_of(model)).max() < 0.1  # drawn with a deviation of 0.02
    assert "39 of 41 variables filled; new: classifier/dense; unused: classifier;" in (
        capsys.readouterr().out
    )
    # The pooler is the checkpoint's, so it is no part of the head.
    assert [stage.name for stage in model.stages if stage.role == "head"] == ["classifier"]


def test_a_head_for_another_pooling_is_left_out_and_said(capsys):
    model = ft.load(FOLDER, labels=["a", "b"], pooling="mean")
    assert model.labels == ("a", "b")
    assert "37 of 39 variables filled; new: classifier/dense; unused: " in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["BertForTokenClassification", "BertForMultipleChoice"])
def test_a_head_for_another_task_is_left_out_and_said(tmp_path, kind, capsys):
    folder = copy_checkpoint(FOLDER, tmp_path / "other", architectures=[kind])
    assert ft.load(folder, "text-classification", labels=["a", "b"]).labels == ("a", "b")
    printed = capsys.readouterr().out
    assert "new: classifier/dense; unused: classifier;" in printed
    assert "is left out, because that is another task." in printed


def test_problem_types():
    assert ft.load(FOLDER, labels=["a", "b"], new_head=True).labels.problem_type == (
        "single_label_classification"
    )
    several = ft.load(FOLDER, problem_type="multi_label_classification")
    assert (
        several.labels.problem_type
        == several.config["problem_type"]
        == ("multi_label_classification")
    )
    score = ft.load(FOLDER, labels=["stars"], new_head=True)
    assert score.labels == ft.Labels(["stars"], "regression")
    assert logits(score, inputs_of(EXPECTED)).shape == (4, 1)


def test_the_problem_type_of_the_checkpoint(tmp_path):
    folder = copy_checkpoint(FOLDER, tmp_path / "m", problem_type="multi_label_classification")
    for labels in (None, ["yes", "no", "maybe"]):
        assert ft.load(folder, labels=labels).labels == ("no", "maybe", "yes")
        found = ft.load(folder, labels=labels).labels.problem_type
        assert found == "multi_label_classification"


def test_labels_numbered_in_any_order(tmp_path):
    names = {str(i): f"class {i}" for i in (1, 10, 2, 0, 3, 4, 5, 6, 7, 8, 9)}
    folder = copy_checkpoint(FOLDER, tmp_path / "many", id2label=names)
    model = ft.load(folder, new_head=True)
    assert list(model.labels) == [f"class {i}" for i in range(11)]


def dropouts(model) -> set[float]:
    blocks = [model.get_layer("block_0"), model.get_layer("block_1")]
    layers = [
        model.get_layer("embeddings").dropout,
        *(block.dropout for block in blocks),
        *(block.attention.dropout for block in blocks),
        model.get_layer("classifier").dropout,
    ]
    return {layer.rate for layer in layers}


def test_dropout_rates(tmp_path):
    config = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.3}
    folder = copy_checkpoint(FOLDER, tmp_path / "some", **config)
    assert dropouts(ft.load(folder)) == {0.2, 0.3}
    assert ft.load(folder).get_layer("classifier").dropout.rate == 0.2
    assert dropouts(ft.load(folder, dropout=0.0)) == {0.0}
    model = ft.load(folder, dropout=0.25)
    assert dropouts(model) == {0.25}
    assert model.config["attention_probs_dropout_prob"] == 0.25
    assert ft.load(UNNAMED).get_layer("classifier").dropout.rate == 0.3  # classifier_dropout
    with pytest.raises(
        ArgumentError, match="dropout must be a number >= 0 and < 1, or None, found 1.5"
    ):
        ft.load(folder, dropout=1.5)


def test_dropout_is_active_in_training_only():
    model = ft.load(FOLDER, dropout=0.5)
    inputs = inputs_of(EXPECTED)
    assert np.abs(model(inputs, training=True) - EXPECTED["logits"]).max() > 0.01
    np.testing.assert_allclose(model(inputs), EXPECTED["logits"], rtol=0, atol=1e-5)


def pooled(tmp_path, **modes):
    """A bare model that says how it was pooled."""
    folder = copy_checkpoint(reference("base")[0], tmp_path / "pooled")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes))
    return folder


@pytest.mark.parametrize(
    ("modes", "pooling"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}, "cls"),
        ({"embedding_dimension": 18, "pooling_mode": "mean"}, "mean"),
        ({"pooling_mode": ["cls"]}, "cls"),
    ],
)
def test_auto_pooling_is_the_one_of_the_checkpoint(tmp_path, modes, pooling):
    model = ft.load(pooled(tmp_path, **modes))
    assert model.info.pooling == pooling
    assert model.get_layer("pooling").mode == pooling


def test_poolings_that_are_not_there(tmp_path):
    folder = pooled(tmp_path, pooling_mode_max_tokens=True)
    message = r"was trained with the pooling 'pooling_mode_max_tokens', which is not supported. Ch"
    with pytest.raises(CheckpointError, match=message):
        ft.load(folder, labels=2)
    assert ft.load(folder, labels=2, pooling="mean").info.pooling == "mean"
    with pytest.raises(CheckpointError, match="one of auto, pooler, cls, mean, found 'max'"):
        ft.load(folder, labels=2, pooling="max")


def test_a_dense_module_that_gives_no_logits(tmp_path):
    folder = pooled(tmp_path, pooling_mode_mean_tokens=True)
    (folder / "2_Dense").mkdir()
    dense = {"in_features": 18, "activation_function": "torch.nn.modules.activation.Tanh"}
    (folder / "2_Dense" / "config.json").write_text(json.dumps(dense))
    weights = {"linear.weight": np.ones((3, 18), "float32"), "linear.bias": np.ones(3, "float32")}
    save_file(weights, folder / "2_Dense" / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"Dense module that ends in the activation 'Tanh'.*new_head"
    ):
        ft.load(folder, "text-classification")
    assert ft.load(folder, labels=["a", "b"], new_head=True).labels == ("a", "b")


def test_an_unknown_task():
    with pytest.raises(ModelError, match="There is no task 'poetry'; known are: text-classific"):
        ft.load(FOLDER, task="poetry")


def test_a_checkpoint_without_a_tokenizer_gets_none_made_up():
    with pytest.raises(CheckpointError, match=r"There is no tokenizer in .*relu: expected token"):
        print(ft.load(FOLDER).tokenizer)
