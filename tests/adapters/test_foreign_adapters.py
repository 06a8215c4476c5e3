"""Adapters on models that do not come from `ft.load`."""

import keras
import numpy as np
import pytest
from keras import layers

import finetune_tf as ft
from finetune_tf.adapters import IA3, Bottleneck, LoRA
from finetune_tf.errors import ModelError

X = np.random.default_rng(0).normal(size=(16, 6, 12)).astype("float32")
Y = (X[:, 0, 0] > 0).astype("int32")


def transformer(policy="float32"):
    """A small Transformer of Keras's own layers."""
    keras.utils.set_random_seed(0)
    options = {"dtype": policy}
    inputs = keras.Input((6, 12))
    x = inputs
    for i in range(2):
        attention = layers.MultiHeadAttention(3, 4, name=f"attention_{i}", **options)
        x = layers.LayerNormalization(name=f"norm_{i}", **options)(x + attention(x, x))
        inner = layers.Dense(20, "gelu", name=f"inner_{i}", **options)(x)
        x = x + layers.Dense(12, name=f"outer_{i}", **options)(inner)
    pooled = layers.GlobalAveragePooling1D()(x)
    outputs = layers.Dense(2, name="logits", dtype="float32")(pooled)
    return keras.Model(inputs, outputs, name="transformer")


def convolutional():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 12, 1))
    x = layers.Conv2D(4, 3, activation="relu", name="first")(inputs)
    x = layers.Conv2D(5, 3, name="second")(x)
    x = layers.BatchNormalization()(x)
    outputs = layers.Dense(2, name="logits")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, outputs, name="convolutional")


def shake(model):
    random = np.random.default_rng(0)
    for variable in ft.select.adapters()(model):
        variable.assign(variable + random.normal(0, 0.2, variable.shape))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "adapter"),
    [
        (transformer, LoRA(rank=2)),
        (transformer, LoRA(rank=2, targets="all", use_dora=True)),
        (transformer, LoRA(rank=2, targets=["inner_0", "outer_1"], dropout=0.1)),
        (transformer, IA3(targets=["inner_1", "outer_0"], feed_forward=["outer_0"])),
        (convolutional, LoRA(rank=2, targets=["second", "first"])),
    ],
    ids=["LoRA", "DoRA", "Dense", "IA3", "Conv2D"],
)
def test_adapters_learn_and_are_merged(make, adapter, tmp_path):
    model = make()
    x = X[..., None] if make is convolutional else X
    plain = model.predict(x, verbose=0)
    model.compile(
        keras.optimizers.SGD(0.05), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    ft.adapters.add(model, adapter)
    np.testing.assert_allclose(model.predict(x, verbose=0), plain, atol=1e-5)
    shake(model)
    before = [weight.copy() for weight in model.get_weights()]
    losses = model.fit(x, Y, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    changed = {
        v.path
        for v, old in zip(model.weights, before, strict=True)
        if not np.array_equal(v, old) and "moving" not in v.path
    }
    assert changed == {v.path for v in model.trainable_variables}
    adapted = model.predict(x, verbose=0)
    assert np.abs(adapted - plain).max() > 1e-3

    with pytest.raises(
        ModelError, match="A .keras file of this model would lose its adapters, bec"
    ):
        model.save(tmp_path / "m.keras")
    with pytest.raises(
        ModelError, match="A .keras file of this model would lose its adapters, bec"
    ):
        keras.saving.save_model(keras.Model(model.input, model(model.input)), tmp_path / "m.keras")
    model.save_weights(tmp_path / "m.weights.h5")
    again = make()
    ft.adapters.add(again, adapter)
    again.load_weights(tmp_path / "m.weights.h5")
    np.testing.assert_allclose(again.predict(x, verbose=0), adapted, atol=1e-6)

    ft.adapters.merge(model)
    np.testing.assert_allclose(model.predict(x, verbose=0), adapted, atol=1e-5)
    ft.adapters.remove(model, "default")
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(again.predict(x, verbose=0), adapted, atol=1e-5)


@pytest.mark.slow
def test_switched_off_and_removed(tmp_path):
    model = transformer()
    plain = model.predict(X, verbose=0)
    ft.adapters.add(model, LoRA(rank=2), name="a")
    shake(model)
    ft.adapters.add(model, Bottleneck(4, targets=["outer_0", "attention_output"]), name="b")
    shake(model)
    both = model.predict(X, verbose=0)
    ft.adapters.switch(model, None)
    np.testing.assert_array_equal(model.predict(X, verbose=0), plain)
    ft.adapters.switch(model, ["a", "b"])
    assert np.abs(model.predict(X, verbose=0) - both).max() > 1e-3
    ft.adapters.remove(model, "b")
    ft.adapters.remove(model, "a")
    np.testing.assert_array_equal(model.predict(X, verbose=0), plain)
    assert not any("call" in vars(layer) for layer in model.layers)
    model.save(tmp_path / "model.keras")


@pytest.mark.slow
def test_mixed_precision():
    model, whole = transformer("mixed_bfloat16"), transformer()
    for each in (model, whole):
        ft.adapters.add(each, LoRA(rank=2, targets="all", use_dora=True))
        shake(each)
    whole.set_weights(model.get_weights())
    np.testing.assert_allclose(model(X), whole(X), atol=0.1)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(X, Y, verbose=0)


def test_cached_features():
    model = transformer()
    ft.adapters.add(model, LoRA(rank=2, targets=["inner_1"]))
    shake(model)
    learner = ft.cache_features(model)
    np.testing.assert_allclose(
        learner.predict(learner.features(X), verbose=0), model.predict(X, verbose=0), atol=1e-5
    )


@pytest.mark.slow
def test_a_model_of_the_library_inside_of_another_keeps_its_adapters(tiny_bert, tmp_path):
    inner = ft.load(tiny_bert, labels=3)
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in inner.input}
    outer = keras.Model(inputs, layers.Dense(1, name="top")(inner(inputs)))
    ft.adapters.add(outer, LoRA(rank=2))
    shake(outer)
    tokens = {name: np.ones((2, 4), "int32") for name in inputs}
    outer.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(tokens), outer.predict(tokens))
    assert len(ft.select.adapters()(again)) == 8


def test_what_is_refused(tmp_path):
    model = transformer()
    with pytest.raises(
        ModelError, match="EinsumDense, which cannot have adapters with dropout; on"
    ):
        ft.adapters.add(model, LoRA(dropout=0.1))
    with pytest.raises(ModelError, match="EinsumDense, which cannot have IA3 adapters; only Dense"):
        ft.adapters.add(model, IA3())
    assert not ft.select.adapters().matches(model)
    with pytest.raises(ModelError, match=r"No layer of 'convolutional' matches targets=None; it h"):
        ft.adapters.add(convolutional(), LoRA())
    ft.adapters.add(model, LoRA())
    with pytest.raises(ModelError, match="'transformer' does not come from ft.load, so its layers"):
        ft.adapters.save_peft(model, tmp_path / "x")


@pytest.mark.slow
def test_a_backbone_of_keras_hub():
    keras_hub = pytest.importorskip("keras_hub")
    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=30, num_layers=2, num_heads=2, hidden_dim=8, intermediate_dim=12,
        max_sequence_length=8,
    )  # fmt: skip
    inputs = {
        "token_ids": np.ones((2, 6), "int32"),
        "segment_ids": np.zeros((2, 6), "int32"),
        "padding_mask": np.ones((2, 6), "int32"),
    }
    plain = backbone.predict(inputs, verbose=0)["sequence_output"]
    ft.adapters.add(backbone, LoRA(rank=2))
    assert len(ft.select.adapters()(backbone)) == 8
    shake(backbone)
    adapted = backbone.predict(inputs, verbose=0)["sequence_output"]
    assert np.abs(adapted - plain).max() > 1e-3
    ft.adapters.merge(backbone)
    np.testing.assert_allclose(
        backbone.predict(inputs, verbose=0)["sequence_output"], adapted, atol=1e-5
    )
