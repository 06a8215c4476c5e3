"""Label names from config keys other than id2label."""

import numpy as np
import pytest
from helpers_checkpoints import copy_checkpoint, reference

import finetune_tf as ft
from finetune_tf.checkpoints.checkpoint import with_labels
from finetune_tf.errors import CheckpointError, DataError

FOLDER, _ = reference("relu")  # its labels are no, maybe, yes


def test_label2id_alone_names_the_outputs(tmp_path):
    numbers = {"maybe": 1, "no": 0, "yes": 2}
    folder = copy_checkpoint(FOLDER, tmp_path / "c", id2label=None, label2id=numbers)
    model = ft.load(folder)
    assert model.labels == ("no", "maybe", "yes")
    assert model.config["id2label"] == {"0": "no", "1": "maybe", "2": "yes"}
    assert ft.load(model.save_pretrained(tmp_path / "out")).labels == model.labels


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({"label2id": {"b": "1", "a": "0"}}, {"0": "a", "1": "b"}),
        ({"num_labels": 3}, {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}),
        ({"num_labels": 5, "id2label": {"0": "x"}}, {"0": "x"}),
        ({"num_labels": 5, "label2id": {"x": 0}}, {"0": "x"}),
        ({}, None),
    ],
)
def test_id2label_is_derived_from_other_keys(config, names):
    assert with_labels(config).get("id2label") == names


@pytest.mark.parametrize("numbers", [{"a": 0, "b": 0}, {"a": 1, "b": 2}, {"a": 0.5}, {"a": None}])
def test_invalid_ids_in_label2id(numbers):
    with pytest.raises(CheckpointError, match="'label2id' has to number the labels from 0 on"):
        with_labels({"label2id": numbers})


def test_contradicting_id2label_and_label2id(capsys):
    config = {"id2label": {"0": "bad", "1": "good"}, "label2id": {"good": 0, "bad": 1}}
    assert with_labels(config) == config
    assert "contradict each other; id2label is used" in capsys.readouterr().out
    with_labels({"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}})
    assert capsys.readouterr().out == ""


def test_a_set_of_labels_is_refused_because_it_has_no_order():
    with pytest.raises(DataError, match="a list of names in the order of the outputs"):
        ft.Labels.of({"no", "yes"})


def test_number_of_labels_as_a_numpy_integer():
    assert ft.Labels.of(np.int64(3)) == ("LABEL_0", "LABEL_1", "LABEL_2")


def test_a_message_says_which_names_the_outputs_of_a_trained_head_get(tmp_path, capsys):
    generic = {str(i): f"LABEL_{i}" for i in range(3)}
    folder = copy_checkpoint(FOLDER, tmp_path / "c", id2label=generic, label2id=None)
    assert ft.load(folder, labels=["x", "y", "z"]).labels == ("x", "y", "z")
    expected = (
        f"The trained head of {folder} has no names for its labels: LABEL_0 is called 'x', LABEL_1 "
        "is called 'y', LABEL_2 is called 'z'. If that is not their order in its training, give "
        "labels=[…] in that order, or new_head=True."
    )
    assert expected in capsys.readouterr().out.splitlines()
    ft.load(folder, labels=["0", "1", "2"])
    ft.load(folder, labels=["x", "y", "z"], new_head=True)
    assert "has no names for its labels" not in capsys.readouterr().out
