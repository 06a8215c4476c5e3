"""The task of `load`: the requested one, or else that of the checkpoint."""

import json
import shutil

import keras
import numpy as np
import pytest
from helpers_checkpoints import TESTS
from helpers_models import write_checkpoint

import finetune_tf as ft
from finetune_tf.checkpoints import open_checkpoint
from finetune_tf.errors import CheckpointError
from finetune_tf.tasks.task_inference import choose_task

INPUTS = {"input_ids": np.array([[2, 5, 9, 12, 3]])}
KINDS = {
    "classifier": ("text-classification", {"labels": ["x", "y", "z"]}),
    "classifier-mean": ("text-classification", {"labels": ["x", "y", "z"], "pooling": "mean"}),
    "score": ("text-classification", {"labels": ["stars"]}),
    "topics": (
        "text-classification",
        {"labels": ["x", "y"], "problem_type": "multi_label_classification"},
    ),
    "tags": ("token-classification", {"labels": ["O", "B-who", "I-who"]}),
    "answers": ("question-answering", {}),
    "words": ("fill-mask", {}),
    "vectors": ("feature-extraction", {}),
    "vectors-cls": ("feature-extraction", {"pooling": "cls"}),
    "vectors-pooler": ("feature-extraction", {"pooling": "pooler"}),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "base", blocks=1)


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    """A folder and the outputs of a model of each kind, whose head is not as initialized."""
    folder = tmp_path_factory.mktemp("trained")
    kinds = {}
    with ft.messages.quiet():
        for name, (task, options) in KINDS.items():
            model = ft.load(base, task, **options)
            for layer in model.info.head_layers:
                for variable in model.get_layer(layer).weights:
                    variable.assign(keras.ops.ones_like(variable) * 0.1 + variable.value)
            kinds[name] = model.save_pretrained(folder / name), np.asarray(model(INPUTS))
    return kinds


def changed(source, folder, **config):
    """Returns a copy with other keys in its config.json; None removes a key."""
    shutil.copytree(source, folder)
    content = json.loads((folder / "config.json").read_text()) | config
    content = {key: value for key, value in content.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_reloads_as_what_it_was(trained, kind, capsys):
    folder, expected = trained[kind]
    task, options = KINDS[kind]

    model = ft.load(folder)

    assert model.task.name == task
    assert model.labels == (tuple(options["labels"]) if "labels" in options else None)
    if "problem_type" in options:
        assert model.labels.problem_type == options["problem_type"]
    np.testing.assert_allclose(np.asarray(model(INPUTS)), expected, rtol=0, atol=1e-6)
    assert f"; task {task}, by " in capsys.readouterr().out
    assert model.info.initial_weights == {}


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_tell_the_task_where_no_class_is_named(trained, kind, tmp_path):
    folder, expected = trained[kind]

    model = ft.load(changed(folder, tmp_path / "unnamed", architectures=None))

    assert model.task.name == KINDS[kind][0]
    np.testing.assert_allclose(np.asarray(model(INPUTS)), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["answers", "words", "vectors", "vectors-pooler"])
def test_labels_make_a_text_classifier_of_what_was_trained_without(trained, kind, capsys):
    model = ft.load(trained[kind][0], labels=["a", "b"])

    assert model.task.name == "text-classification" and model.labels == ("a", "b")
    printed = capsys.readouterr().out
    assert "new: " in printed and "task text-classification, because labels are given" in printed
    left_out = "its trained head for question-answering is left out, because that is another task."
    assert (left_out in printed) == (kind == "answers")


def test_a_problem_type_makes_a_text_classifier_too(base):
    model = ft.load(base, problem_type="multi_label_classification")
    assert model.task.name == "text-classification"


def test_labels_of_another_head_are_refused_and_the_task_is_named(trained):
    message = r"has a head trained for the labels \['O', .*It is a head for token-classification"
    with pytest.raises(CheckpointError, match=message):
        ft.load(trained["tags"][0], labels=["good", "bad"])
    assert ft.load(trained["tags"][0], labels=["O", "B-who", "I-who"]).task.name == (
        "token-classification"
    )


@pytest.mark.parametrize(
    "kind, asked",
    [
        ("tags", "text-classification"),  # its tensors have the same name
        ("classifier", "token-classification"),
        ("classifier-mean", "token-classification"),
        ("answers", "token-classification"),
        ("tags", "fill-mask"),
        ("classifier", "question-answering"),
    ],
)
def test_a_head_of_another_task_is_left_out_and_named(trained, kind, asked, capsys, base):
    model = ft.load(trained[kind][0], asked)

    assert model.task.name == asked
    fresh = set(ft.load(base, asked).info.initial_weights)
    assert fresh <= set(model.info.initial_weights)  # no variable of the head was filled
    assert (
        f"; its trained head for {KINDS[kind][0]} is left out, because that is another task."
    ) in capsys.readouterr().out


def test_a_head_from_pretraining_is_left_out_without_a_word(trained, capsys):
    ft.load(trained["words"][0], "token-classification", labels=["O", "B-x"])
    assert "another task" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "kind, classes, labels, task",
    [
        ("words", ["BertForPreTraining"], None, "fill-mask"),
        ("words", ["BertForMaskedLM", "BertForPreTraining"], None, "fill-mask"),
        ("words", ["BertForPreTraining"], 2, "text-classification"),
        ("vectors", ["BertForMaskedLM"], None, "feature-extraction"),  # as of all-mpnet-base-v2
        ("tags", ["BertForSequenceClassification", "BertForTokenClassification"], None, "token-cl"),
        ("tags", ["TFBertForTokenClassification"], None, "token-classification"),
        ("classifier", ["BertForMultipleChoice"], 2, "text-classification"),
    ],
)
def test_other_lists_of_classes(trained, tmp_path, kind, classes, labels, task):
    folder = changed(trained[kind][0], tmp_path / "other", architectures=classes)
    assert ft.load(folder, labels=labels).task.name.startswith(task)


def test_classes_that_contradict_each_other_are_refused(trained, tmp_path):
    classes = ["BertForSequenceClassification", "BertForTokenClassification"]
    folder = changed(trained["classifier"][0], tmp_path / "two", architectures=classes)
    with pytest.raises(CheckpointError, match=r"may have been trained for .* or .*Say which: task"):
        ft.load(folder)
    assert ft.load(folder, "text-classification").info.initial_weights == {}


@pytest.mark.parametrize("name", ["BertForMultipleChoice", "BertForSomethingOfOnesOwn", "BertCRF"])
def test_a_class_of_no_supported_task_is_refused(trained, tmp_path, name):
    folder = changed(trained["classifier"][0], tmp_path / "other", architectures=[name])
    message = f"was trained as {name}, which is none of the supported tasks. Say which task"
    with pytest.raises(CheckpointError, match=message):
        ft.load(folder)


def test_tensors_of_two_tasks_are_refused(tmp_path):
    """ModernBERT's text and token classifiers have the same tensors."""
    source = TESTS / "references" / "modernbert" / "text-classification"
    folder = changed(source, tmp_path / "unnamed", architectures=None)
    with pytest.raises(CheckpointError, match="names no class of model. Say which: task='…'"):
        ft.load(folder)


@pytest.mark.parametrize(
    "folder", sorted((TESTS / "references").glob("*/*-*")), ids=lambda p: p.parent.name + p.name
)
def test_every_family_says_what_it_is_for(folder):
    if folder.name == "feature-extraction":
        pytest.skip("a bare model, which serves anything")
    architectures = json.loads((folder / "config.json").read_text())["architectures"]
    if folder.name == "text2text-generation" and "ForMaskedLM" in architectures[0]:
        pytest.skip("a masked language model, which is an encoder-decoder only if that is asked")
    assert choose_task(None, open_checkpoint(folder), False).task.name == folder.name


def test_an_embedding_with_a_dense_module_is_no_classifier(trained, tmp_path):
    folder = changed(
        trained["classifier-mean"][0], tmp_path / "dense", id2label=None, label2id=None
    )
    with pytest.raises(CheckpointError, match="the module Dense behind its transformer"):
        ft.load(folder)


def test_a_bare_model_without_labels_gets_a_new_head_and_says_so(base, capsys):
    assert ft.load(base).task.name == "text-classification"
    assert "; task text-classification, because it has no trained head." in capsys.readouterr().out


def test_a_task_that_was_asked_for_needs_no_reason(base, capsys):
    ft.load(base, "text-classification")
    assert "; task " not in capsys.readouterr().out
