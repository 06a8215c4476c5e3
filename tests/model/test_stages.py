"""The stages of a model and their names."""

from pathlib import Path

import keras
import pytest
from keras import layers

import finetune_tf as ft
from finetune_tf.errors import ModelError


def names_and_roles(model):
    return [(stage.name, stage.role) for stage in ft.stages(model)]


def test_bert_is_embeddings_blocks_and_head(tiny_bert):
    model = ft.load(tiny_bert, labels=["no", "yes"])
    assert names_and_roles(model) == [
        ("embeddings", "embeddings"),
        ("block_0", "block"),
        ("block_1", "block"),
        ("pooler", "pooler"),
        ("classifier", "head"),
    ]
    assert [stage.name for stage in model.stages] == [stage.name for stage in ft.stages(model)]


def test_stages_hold_every_variable_once(tiny_bert):
    model = ft.load(tiny_bert, labels=2)
    paths = [variable.path for stage in model.stages for variable in stage.variables]
    assert sorted(paths) == sorted(variable.path for variable in model.weights)
    assert len(set(paths)) == len(paths)


def test_a_trained_layer_below_the_output_layer_is_no_block():
    folder = Path(__file__).parents[1] / "references" / "modernbert" / "text-classification"
    model = ft.load(folder, "token-classification", labels=["no", "yes"])
    assert names_and_roles(model)[-4:] == [
        ("block_2", "block"),
        ("final_norm", "norm"),
        ("transform", "pooler"),
        ("classifier", "head"),
    ]


def test_mean_pooling_is_no_stage_because_it_has_no_weights(tiny_bert):
    model = ft.load(tiny_bert, labels=2, pooling="mean")
    assert [name for name, _ in names_and_roles(model)] == [
        "embeddings",
        "block_0",
        "block_1",
        "classifier",
    ]


def test_sequential_is_cut_after_each_weighted_layer():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, name="first"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(),
            layers.Dense(2, name="second"),
        ]
    )
    assert names_and_roles(model) == [("first", "block"), ("norm", "block"), ("second", "head")]


def test_a_residual_stays_whole():
    inputs = keras.Input((4,))
    stem = layers.Dense(4, name="stem")(inputs)
    inner = layers.Dense(4, name="res_a")(stem)
    inner = layers.Dense(4, name="res_b")(inner)
    outputs = layers.Dense(2, name="top")(layers.Add()([stem, inner]))
    model = keras.Model(inputs, outputs)
    assert names_and_roles(model) == [("stem", "block"), ("res", "block"), ("top", "head")]
    assert [layer.name for layer in ft.stages(model)[1].layers] == ["res_a", "res_b"]


def test_resnet50_is_cut_between_its_residual_blocks():
    resnet = keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3), classes=3)
    found = names_and_roles(resnet)
    blocks = [
        f"conv{group}_block{i}"
        for group, count in ((2, 3), (3, 4), (4, 6), (5, 3))
        for i in range(1, count + 1)
    ]
    assert found == [
        ("conv1_conv", "block"),
        ("conv1_bn", "block"),
        *((name, "block") for name in blocks),
        ("predictions", "head"),
    ]


def test_mobilenet_v2_keeps_its_residual_blocks_whole():
    model = keras.applications.MobileNetV2(weights=None, input_shape=(32, 32, 3), classes=3)
    found = ft.stages(model)
    residual = [stage.name for stage in found if len(stage.layers) > 1]
    assert residual == [f"block_{i}" for i in (2, 4, 5, 7, 8, 9, 11, 12, 14, 15)]
    assert [stage.name for stage in found if stage.role == "head"] == ["predictions"]
    paths = [variable.path for stage in found for variable in stage.variables]
    assert sorted(paths) == sorted(variable.path for variable in model.trainable_variables)


def test_a_model_inside_a_model_is_opened():
    inner = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3, name="a"), layers.Dense(3, name="b")]
    )
    model = keras.Sequential([keras.Input((4,)), inner, layers.Dense(2, name="out")])
    assert names_and_roles(model) == [("a", "block"), ("b", "block"), ("out", "head")]


def test_our_model_inside_a_functional_model_is_opened(tiny_bert):
    ids = keras.Input((None,), dtype="int32")
    logits = ft.load(tiny_bert, labels=2)({"input_ids": ids})
    outer = keras.Model(ids, layers.Dense(1, name="top")(logits))
    assert names_and_roles(outer) == [
        ("embeddings", "embeddings"),
        ("block_0", "block"),
        ("block_1", "block"),
        ("pooler", "pooler"),
        ("classifier", "head"),
        ("top", "head"),
    ]


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="mine")
        self.first = layers.Dense(4, name="first")
        self.drop = layers.Dropout(0.1)
        self.second = layers.Dense(2, name="second")

    def call(self, x):
        return self.second(self.drop(self.first(x)))


def test_of_a_subclassed_model_each_weighted_layer_is_a_stage():
    model = Subclassed()
    model(keras.ops.zeros((1, 3)))
    assert names_and_roles(model) == [("first", "block"), ("second", "head")]


def test_an_unbuilt_model_says_how_to_build_it():
    message = "The model 'mine' has no weights yet, so it has no stages. Build it first: call it"
    with pytest.raises(ModelError, match=message):
        ft.stages(Subclassed())


def test_a_shared_layer_stands_at_its_first_place():
    inputs = keras.Input((4,))
    shared = layers.Dense(4, name="shared")
    middle = layers.Dense(4, name="middle")(shared(inputs))
    model = keras.Model(inputs, layers.Dense(2, name="top")(shared(middle)))
    assert names_and_roles(model) == [("shared", "block"), ("middle", "block"), ("top", "head")]


def test_a_layer_that_only_counts_is_no_stage():
    normalization = layers.Normalization(mean=0.5, variance=2.0)
    counted = layers.Normalization(name="counted")
    counted.build((None, 4))
    model = keras.Sequential([keras.Input((4,)), normalization, counted, layers.Dense(2, name="a")])
    assert names_and_roles(model) == [("a", "block")]


def test_tokens_are_looked_up_in_the_embeddings():
    model = keras.Sequential(
        [
            keras.Input((5,), dtype="int32"),
            layers.Embedding(9, 4, name="words"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(2, name="top"),
        ]
    )
    assert names_and_roles(model) == [("words", "embeddings"), ("top", "head")]


class TokenAndPositionEmbedding(layers.Embedding):
    """Has the name of a KerasHub class."""


def encoder(**options):
    """A model of tokens that is built as in KerasHub."""
    ids = keras.Input((5,), dtype="int32")
    hidden = TokenAndPositionEmbedding(9, 4, name="tokens")(ids)
    hidden = layers.LayerNormalization(name="norm_below")(hidden)
    hidden = layers.Dense(6, name="embedding_projection")(hidden)
    for i in range(2):
        hidden = layers.Dense(6, name=f"layer_{i}")(hidden)
    hidden = layers.LayerNormalization(name="norm_above")(hidden)
    pooled = layers.Dense(6, "tanh", name="pooled_dense")(hidden[:, 0])
    return keras.Model(ids, pooled, **options)


ENCODER = [
    ("tokens", "embeddings"),
    ("norm_below", "embeddings"),
    ("embedding_projection", "embeddings"),
    ("layer_0", "block"),
    ("layer_1", "block"),
    ("norm_above", "norm"),
    ("pooled_dense", "pooler"),
]


def test_what_is_around_the_blocks_is_no_block():
    assert names_and_roles(encoder()) == ENCODER


def test_policies_count_blocks_alone():
    model = encoder()
    ft.train_only(model, ft.select.embeddings() | ft.select.bottom(1))
    found = {variable.path.partition("/")[0] for variable in model.trainable_variables}
    assert found == {"tokens", "norm_below", "embedding_projection", "layer_0"}
    assert {variable.path for variable in ft.select.blocks(-1)(model)} == {
        *("layer_1/kernel", "layer_1/bias")
    }


def test_a_model_that_names_its_backbone_has_the_rest_as_its_head():
    backbone = encoder()
    inner = layers.Dense(5, "relu", name="inner")(backbone.output)
    normed = layers.LayerNormalization(name="normed")(inner)
    outputs = layers.Activation("relu")(layers.Dense(2, name="top")(normed))
    model = keras.Model(backbone.inputs, outputs)
    assert names_and_roles(model)[-3:] == [("inner", "block"), ("normed", "norm"), ("top", "head")]
    model.backbone = backbone  # as KerasHub's task models do
    rest = [("inner", "head"), ("normed", "head"), ("top", "head")]
    assert names_and_roles(model) == ENCODER + rest


def test_a_normalisation_over_batches_belongs_below():
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3, name="a"), layers.BatchNormalization(name="b")]
    )
    assert names_and_roles(model) == [("a", "block"), ("b", "block")]


def test_equal_names_get_numbers():
    def inner():
        return keras.Sequential([keras.Input((4,)), layers.Dense(4, name="dense")])

    model = keras.Sequential([keras.Input((4,)), inner(), inner(), layers.Dense(2, name="top")])
    assert [stage.name for stage in ft.stages(model)] == ["dense", "dense_1", "top"]
