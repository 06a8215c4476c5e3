"""Models report an untrained head until it is trained, no matter how."""

import json

import keras
import numpy as np
import pytest
from helpers_checkpoints import BERTS
from helpers_models import write_checkpoint

import finetune_tf as ft
from finetune_tf.training.untrained import untrained_layers

pytestmark = pytest.mark.filterwarnings("ignore:A learning rate of")
UNTRAINED = "The head of this model (classifier) is not trained: its weights are the random initial"
TEXTS = ["a good film", "a bad film"]
INPUTS = {"input_ids": np.array([[2, 5, 9, 3], [2, 7, 8, 3]])}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "base", blocks=1)


@pytest.fixture
def model(base):
    return ft.load(base, labels=["good", "bad"])


@pytest.fixture(scope="module")
def examples():
    return ft.data.from_arrays(TEXTS * 4, ["good", "bad"] * 4)


VERBS = {
    "predict": lambda model, examples, folder: ft.predict(model, TEXTS),
    "evaluate": lambda model, examples, folder: ft.evaluate(model, examples),
    "compare": lambda model, examples, folder: ft.compare({"mine": model}, examples),
    "save_pretrained": lambda model, examples, folder: model.save_pretrained(folder),
    "export": lambda model, examples, folder: model.export(folder),
}


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_it_is_said_before_training_and_not_after(model, examples, verb, tmp_path, capsys):
    VERBS[verb](model, examples, tmp_path / "before")
    assert capsys.readouterr().out.count(UNTRAINED) == 1

    model.fit(examples.batches(model, 8), verbose=0)
    assert UNTRAINED not in capsys.readouterr().out
    VERBS[verb](model, examples, tmp_path / "after")
    assert UNTRAINED not in capsys.readouterr().out


def by_keras_loop(model, tmp_path):
    model.compile(keras.optimizers.SGD(0.1))
    model.train_on_batch(INPUTS, np.array([0, 1]))


def by_own_loop(model, tmp_path):
    import tensorflow as tf

    optimizer = keras.optimizers.SGD(0.1)
    with tf.GradientTape() as tape:
        loss = keras.ops.mean(model(INPUTS) ** 2)
    variables = model.trainable_variables
    optimizer.apply(tape.gradient(loss, variables), variables)


def by_weights_of_another(model, tmp_path):
    model.set_weights([weight + 0.1 for weight in model.get_weights()])


def by_a_file_of_weights(model, tmp_path):
    twin = type(model).from_config(model.get_config())
    twin.set_weights([weight + 0.1 for weight in model.get_weights()])
    twin.save_weights(tmp_path / "my.weights.h5")
    model.load_weights(tmp_path / "my.weights.h5")


def by_biases_alone(model, tmp_path):
    ft.train_only(model, ft.select.biases())
    model.compile(keras.optimizers.SGD(0.1))
    model.train_on_batch(INPUTS, np.array([0, 0]))


@pytest.mark.parametrize(
    "train",
    [by_keras_loop, by_own_loop, by_weights_of_another, by_a_file_of_weights, by_biases_alone],
)
def test_any_way_of_training_counts(model, train, tmp_path):
    assert untrained_layers(model) == ["classifier"]
    train(model, tmp_path)
    assert untrained_layers(model) == []
    assert model.info.initial_weights == {}  # no more comparisons from here on


def test_the_frozen_head_of_a_feature_model_counts_with_the_whole(model, examples):
    ft.train_only(model, ft.select.head())
    learner = ft.cache_features(model)
    assert untrained_layers(model) == ["classifier"]
    learner.compile()
    learner.fit(examples.batches(learner, 8), verbose=0)
    assert untrained_layers(model) == []


@pytest.mark.slow
def test_a_keras_file_remembers_it(model, tmp_path, capsys):
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert untrained_layers(again) == ["classifier"]
    by_keras_loop(again, tmp_path)
    again.save(tmp_path / "trained.keras")
    assert untrained_layers(keras.saving.load_model(tmp_path / "trained.keras")) == []


@pytest.mark.parametrize(
    ("task", "pooling", "layers"),
    [
        ("text-classification", None, ["classifier"]),
        ("text-classification", "mean", ["classifier"]),
        ("token-classification", None, ["classifier"]),
        ("fill-mask", None, ["transform", "vocabulary_bias"]),
    ],
)
def test_a_saved_folder_remembers_it(base, tmp_path, capsys, task, pooling, layers):
    given = {"labels": ["neg", "pos"]} if "classification" in task else {}
    model = ft.load(base, task, **given, **({"pooling": pooling} if pooling else {}))
    folder = model.save_pretrained(tmp_path / "model")
    capsys.readouterr()
    again = ft.load(folder, task)
    said = capsys.readouterr().out
    assert "saved untrained: " in said and "new: " not in said
    assert untrained_layers(again) == layers
    kernel = next(v for v in again.weights if v.path in again.info.initial_weights)
    kernel.assign_add(keras.ops.ones(kernel.shape))
    folder = again.save_pretrained(tmp_path / "trained")
    assert untrained_layers(ft.load(folder, task)) == []


def test_a_saved_folder_in_bfloat16_remembers_it(base, tmp_path):
    folder = ft.load(base, labels=2, dtype="bfloat16").save_pretrained(tmp_path / "model")
    assert untrained_layers(ft.load(folder, dtype="bfloat16")) == ["classifier"]


def test_a_model_from_a_config_remembers_it(tmp_path):
    config = {"model_type": "bert", "hidden_size": 8, "num_attention_heads": 2, "vocab_size": 20}
    config |= {"num_hidden_layers": 1, "intermediate_size": 12}
    folder = ft.load(config, labels=2).save_pretrained(tmp_path / "model")
    assert untrained_layers(ft.load(folder)) == ["pooler", "classifier"]


def test_a_pooler_that_is_new_is_named_with_the_classifier(base, tmp_path):
    words = ft.load(base, "fill-mask")
    words.set_weights([weight + 0.01 for weight in words.get_weights()])
    folder = words.save_pretrained(tmp_path / "words")  # contains no pooler
    assert untrained_layers(ft.load(folder, labels=2)) == ["pooler", "classifier"]


@pytest.mark.parametrize(
    "task, layers",
    [
        ("fill-mask", ["transform", "vocabulary_bias"]),
        ("question-answering", ["classifier"]),
        ("feature-extraction", []),
    ],
)
def test_other_tasks(base, task, layers):
    assert untrained_layers(ft.load(base, task)) == layers


def test_more_words_are_no_training(base):
    model = ft.load(base, "fill-mask")
    model.resize_token_embeddings(model.config["vocab_size"] + 3)
    assert untrained_layers(model) == ["transform", "vocabulary_bias"]


def test_a_model_from_a_config_has_an_untrained_head():
    config = json.loads((BERTS / "base" / "config.json").read_text())
    assert untrained_layers(ft.load(config, labels=2)) == ["pooler", "classifier"]


@pytest.mark.slow
def test_a_rival_in_a_comparison_is_told_as_well(base, model, examples, capsys):
    by_keras_loop(model, None)
    ft.evaluate(model, examples, baseline=ft.load(base, labels=["good", "bad"]))
    assert capsys.readouterr().out.count(UNTRAINED) == 1


def test_a_plain_keras_model_says_nothing():
    assert untrained_layers(keras.Sequential([keras.layers.Dense(1)])) == []
