"""`set_dropout` makes a model that is equal to one loaded with the rate."""

from pathlib import Path

import keras
import numpy as np
import pytest

import finetune_tf as ft
from finetune_tf.base.keras_internals import all_layers
from finetune_tf.errors import ArgumentError, ModelError
from finetune_tf.messages import quiet

REFERENCES = Path(__file__).parents[1] / "references"
FOLDERS = {
    "bert": "bert/text-classification",
    "albert": "albert/text-classification",
    "deberta": "deberta/text-classification",
    "modernbert": "modernbert/text-classification",
    "gpt2": "gpt2/text-generation",
    "llama": "llama/text-generation",
    "t5": "t5/text2text-generation",
    "bart": "bart/text2text-generation",
    "vit": "vit/image-classification",
    "swin": "swin/image-classification",
}
TEXTS = ["a very good film", "the actor was great", "a bad film", "a dull story"] * 2


def load(name, **options):
    with quiet():
        return ft.load(REFERENCES / FOLDERS[name], **options)


def test_a_rate_for_a_family_without_dropout_is_refused():
    resnet = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8], "depths": [1]}
    options = {"labels": ["cat", "dog"], "image_size": 32}
    with pytest.raises(ArgumentError, match="dropout=0.3 would have no effect: the family resnet"):
        ft.load(resnet, "image-classification", dropout=0.3, **options)
    ft.load(resnet, "image-classification", dropout=0.0, **options)


def rates(model):
    """The rates of all Dropout layers in order, besides those of stochastic depth."""
    return [
        layer.rate
        for layer in all_layers(model)
        if isinstance(layer, keras.layers.Dropout) and layer.name != "drop_path"
    ]


def layer_configs(model):
    """The configs of the layers, as `.keras` files store them, without depth and names."""

    def plain(value):
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items() if k not in ("dtype", "drop_path")}
        return [plain(v) for v in value] if isinstance(value, list | tuple) else value

    return [plain(layer.get_config()) for layer in model.layers]


@pytest.mark.slow
@pytest.mark.parametrize("name", FOLDERS)
def test_the_model_is_that_of_a_load_with_the_rate(name):
    model = load(name, dropout=0.0)
    with quiet():
        ft.set_dropout(model, 0.25)
    other = load(name, dropout=0.25)
    assert rates(model) == rates(other) and 0.25 in rates(model)
    depth = {"drop_path_rate": 0.0}
    assert {**model.config, **depth} == {**other.config, **depth}
    assert repr(layer_configs(model)) == repr(layer_configs(other))
    with quiet():
        ft.set_dropout(model, 0.0)
    assert set(rates(model)) == {0.0}


@pytest.fixture
def examples():
    return ft.data.from_arrays(TEXTS, ["good", "good", "bad", "bad"] * 2)


def fitted_loss(model, batches):
    """The loss of an epoch that changes no weight."""
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    return model.fit(batches, verbose=0).history["loss"][0]


@pytest.mark.slow
def test_kinds(examples, tiny_bert):
    with quiet():
        model = ft.load(tiny_bert, labels=examples.labels)
        for rate, kind in ((0.1, "hidden"), (0.2, "attention"), (0.3, "head")):
            ft.set_dropout(model, rate, kind)
    block = model.get_layer("block_0")
    assert (block.dropout.rate, block.attention_output_dropout.rate) == (0.1, 0.1)
    assert block.attention.dropout.rate == 0.2
    assert model.get_layer("embeddings").dropout.rate == 0.1
    assert model.get_layer("classifier").dropout.rate == 0.3
    found = {key: value for key, value in model.config.items() if "dropout" in key}
    assert found == {
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.2,
        "classifier_dropout": 0.3,
    }


def test_files_keep_the_rates(examples, tiny_bert, tmp_path):
    with quiet():
        model = ft.load(tiny_bert, labels=examples.labels)
        ft.set_dropout(model, 0.2)
        model.save(tmp_path / "model.keras")
        model.save_pretrained(tmp_path / "model")
        again = keras.saving.load_model(tmp_path / "model.keras")
        loaded = ft.load(tmp_path / "model")
    assert rates(again) == rates(loaded) == rates(model)
    assert again.config["hidden_dropout_prob"] == loaded.config["hidden_dropout_prob"] == 0.2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "checkpointing"),
    [
        ("float32", False),
        pytest.param("float32", True, marks=pytest.mark.slow),
        pytest.param("mixed_bfloat16", False, marks=pytest.mark.slow),
        pytest.param("mixed_bfloat16", True, marks=pytest.mark.slow),
    ],
)
def test_traced_steps_follow(examples, tiny_bert, checkpointing, dtype):
    """Also the fused kernels, and blocks that are computed again in the backward pass."""
    options = {"dtype": dtype, "gradient_checkpointing": checkpointing}
    with quiet():
        model = ft.load(tiny_bert, labels=examples.labels, **options)
        batches = examples.batches(model, 8)
        plain = fitted_loss(model, batches)
        assert model.fit(batches, verbose=0).history["loss"][0] == plain
        ft.set_dropout(model, 0.5)
        dropped = [model.fit(batches, verbose=0).history["loss"][0] for _ in range(3)]
        ft.set_dropout(model, 0.0)
        assert model.fit(batches, verbose=0).history["loss"][0] == plain
    assert len({plain, *dropped}) == 4


class Change(keras.callbacks.Callback):
    """Sets the rate before the second and the third epoch."""

    def __init__(self, *rates):
        super().__init__()
        self.rates = rates

    def on_epoch_begin(self, epoch, logs=None):
        if epoch:
            ft.set_dropout(self.model, self.rates[epoch - 1])


@pytest.mark.slow
def test_within_a_fit(examples, tiny_bert, capsys):
    with quiet():
        model = ft.load(tiny_bert, labels=examples.labels)
        batches = examples.batches(model, 8)
        model.compile(keras.optimizers.SGD(0.0))
    losses = model.fit(batches, epochs=3, callbacks=[Change(0.5, 0.0)], verbose=0).history["loss"]
    assert losses[0] == losses[2] != losses[1]
    assert "8 dropout rates changed to 0.5." in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("by", ["learner", "whole"])
def test_the_upper_part_on_cached_features(examples, tiny_bert, by):
    with quiet():
        model = ft.load(tiny_bert, labels=examples.labels)
        ft.train_only(model, ft.select.head() | ft.select.blocks(-1))
        learner = ft.cache_features(model)
        batches = examples.batches(learner, 8)
        plain = fitted_loss(learner, batches)
        ft.set_dropout(learner if by == "learner" else model, 0.5)
        assert learner.fit(batches, verbose=0).history["loss"][0] != plain
        ft.set_dropout(learner if by == "learner" else model, 0.0)
        assert learner.fit(batches, verbose=0).history["loss"][0] == plain
    assert model.config["hidden_dropout_prob"] == 0.0


def test_two_encoders(tmp_path):
    from helpers_towers import write_towers

    with quiet():
        clip = ft.load(write_towers(tmp_path / "clip"))
        ft.set_dropout(clip, 0.1, "attention")
    assert set(rates(clip)) <= {0.0, 0.1} and 0.1 in rates(clip)
    assert clip.config["text_config"]["attention_dropout"] == 0.1
    assert clip.config["vision_config"]["attention_dropout"] == 0.1


@pytest.mark.slow
def test_predictions_drop_nothing(examples, tiny_bert):
    with quiet():
        model = ft.load(tiny_bert, labels=examples.labels)
        ids = np.array([[2, 5, 6, 3]])
        before = np.asarray(model(ids))
        ft.set_dropout(model, 0.5)
        np.testing.assert_array_equal(model(ids), before)
        dropped = [np.asarray(model(ids, training=True)) for _ in range(2)]
    assert not np.array_equal(*dropped)


@pytest.mark.parametrize("dropout", [1.0, -0.1, None, "0.1"])
def test_a_rate_out_of_range(dropout, tiny_bert):
    model = load("bert")
    with pytest.raises(ArgumentError, match="dropout must be a number >= 0 and < 1, found"):
        ft.set_dropout(model, dropout)


def test_what_has_no_rate():
    with pytest.raises(ArgumentError, match="kind must be one of all, hidden, attention, head"):
        ft.set_dropout(load("bert"), 0.1, "embeddings")
    with pytest.raises(ArgumentError, match="t5 has no .* 'attention'; it has dropout_rate."):
        ft.set_dropout(load("t5"), 0.1, "attention")
    with pytest.raises(ModelError, match="a model from ft.load, found <Sequential"):
        ft.set_dropout(keras.Sequential([keras.Input((2,))]), 0.1)
