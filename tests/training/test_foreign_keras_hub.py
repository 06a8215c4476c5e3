"""Stages, freezing and presets on KerasHub models, which are independent of this library."""

import keras
import numpy as np
import pytest

import finetune_tf as ft
from finetune_tf import select
from finetune_tf.errors import ModelError

pytestmark = pytest.mark.slow
SIZES = {
    "vocabulary_size": 23,
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 8,
    "intermediate_dim": 12,
    "max_sequence_length": 16,
}
BLOCKS = [(f"transformer_layer_{i}", "block") for i in range(2)]
RANDOM = np.random.default_rng(0)
IDS = RANDOM.integers(1, 23, (8, 6)).astype("int32")
LABELS = np.arange(8) % 3


@pytest.fixture(scope="module")
def hub():
    return pytest.importorskip("keras_hub").models


def bert_classifier(hub):
    keras.utils.set_random_seed(0)
    backbone = hub.BertBackbone(**SIZES)
    return hub.BertTextClassifier(backbone, num_classes=3, preprocessor=None, dropout=0.0)


@pytest.fixture
def model(hub):
    return bert_classifier(hub)


@pytest.fixture
def compiled(model):
    preset = ft.presets.cross_entropy(learning_rate=1e-2, schedule="constant")
    model.compile(**preset, jit_compile=False)  # which is slow
    return model


def inputs_of(model):
    arrays = {
        "token_ids": IDS,
        "padding_mask": np.ones_like(IDS),
        "segment_ids": np.zeros_like(IDS),
    }
    return {tensor.name: arrays[tensor.name] for tensor in model.inputs}


def names_and_roles(model):
    return [(stage.name, stage.role) for stage in ft.stages(model)]


def moved_by_a_fit(model):
    """Returns the paths of the variables that a fit changes."""
    before = [variable.numpy() for variable in model.weights]
    # KerasHub turns arrays into a tf.data.Dataset, which Keras does not shuffle.
    model.fit(inputs_of(model), LABELS, batch_size=4, shuffle=False, verbose=0)
    return {
        variable.path
        for variable, old in zip(model.weights, before, strict=True)
        if not np.array_equal(old, variable.numpy())
    }


def paths(variables):
    return {variable.path for variable in variables}


def can_move(chosen):
    """Leaves out the key biases: softmax cancels them, so their gradient is a rounding error."""
    return {path for path in chosen if not path.endswith("/key/bias")}


def test_stages_of_bert(hub, model):
    embeddings = ("token_embedding", "position_embedding", "embeddings_layer_norm")
    backbone = [(name, "embeddings") for name in embeddings] + BLOCKS + [("pooled_dense", "pooler")]
    assert names_and_roles(model) == [*backbone, ("logits", "head")]
    assert names_and_roles(model.backbone) == backbone
    in_stages = [v.path for stage in ft.stages(model) for v in stage.variables]
    assert sorted(in_stages) == sorted(paths(model.trainable_variables))


def test_stages_of_other_backbones(hub):
    albert = hub.AlbertBackbone(**SIZES, embedding_dim=4)
    assert names_and_roles(albert) == [
        ("token_embedding", "embeddings"),
        ("position_embedding", "embeddings"),
        ("embeddings_layer_norm", "embeddings"),
        ("embedding_projection", "embeddings"),
        ("group_0_inner_layer_0", "block"),
        ("pooled_dense", "pooler"),
    ]
    gpt2 = hub.GPT2Backbone(**SIZES)
    assert names_and_roles(gpt2) == [
        ("token_embedding", "embeddings"),
        ("position_embedding", "embeddings"),
        *BLOCKS,
        ("layer_norm", "norm"),
    ]


def test_the_head_of_roberta_is_all_that_is_not_pretrained(hub):
    model = hub.RobertaTextClassifier(
        hub.RobertaBackbone(**SIZES), num_classes=3, preprocessor=None
    )
    assert names_and_roles(model) == [
        ("embeddings", "embeddings"),
        ("embeddings_layer_norm", "embeddings"),
        *BLOCKS,
        ("pooled_dense", "head"),
        ("logits", "head"),
    ]


def test_a_backbone_in_a_model_of_ones_own(hub):
    backbone = hub.BertBackbone(**SIZES)
    pooled = backbone(backbone.input)["pooled_output"]
    logits = keras.layers.Dense(3, name="mine")(keras.layers.Dropout(0.1)(pooled))
    model = keras.Model(backbone.inputs, logits)
    assert names_and_roles(model) == [*names_and_roles(backbone), ("mine", "head")]


def test_residual_blocks_of_an_image_backbone_stay_whole(hub):
    backbone = hub.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 64],
        stackwise_num_blocks=[2, 2],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
        image_shape=(16, 16, 3),
    )
    names = ["conv1_conv", "conv1_bn", *(f"stack{i}_block{j}" for i in (0, 1) for j in (0, 1))]
    assert names_and_roles(backbone) == [(name, "block") for name in names]
    classifier = hub.ImageClassifier(backbone, num_classes=3)
    assert names_and_roles(classifier)[-1] == ("predictions", "head")


EMBEDDINGS = ("token_embedding", "position_embedding", "segment_embedding", "embeddings_layer")
POLICIES = {
    "bottom": (select.bottom(1), lambda path: "/transformer_layer_0/" in f"/{path}"),
    "embeddings": (select.embeddings(), lambda path: path.startswith(EMBEDDINGS)),
    "norms": (select.norms(), lambda path: "norm/" in path),
    "biases": (select.biases(), lambda path: path.endswith(("/bias", "/beta"))),
    "matching": (select.matching("attention_layer/value"), lambda path: "layer/value/" in path),
    "head": (select.head(), lambda path: path.startswith("logits")),
}


@pytest.mark.parametrize("policy", POLICIES)
def test_policies_before_and_after_compile_and_between_fits(model, policy):
    selector, expected = POLICIES[policy]
    every = paths(model.trainable_variables)
    chosen = {path for path in every if expected(path)}
    ft.freeze(model, selector)
    assert paths(model.trainable_variables) == every - chosen
    preset = ft.presets.cross_entropy(learning_rate=1e-2, schedule="constant")
    model.compile(**preset, run_eagerly=True)
    assert can_move(every - chosen) <= moved_by_a_fit(model) <= every - chosen
    ft.train_only(model, selector)
    assert can_move(chosen) <= moved_by_a_fit(model) <= chosen
    ft.train_only(model, select.everything())
    assert moved_by_a_fit(model) >= can_move(every)


def test_freezing_after_a_fit_keeps_the_slots(compiled):
    moved_by_a_fit(compiled)
    slots = {
        v.path: v.numpy() for v in compiled.optimizer.variables if "transformer_layer_1" in v.path
    }
    ft.freeze(compiled, select.embeddings() | select.bottom(1))
    kept = {variable.path: variable for variable in compiled.optimizer.variables}
    for path, slot in slots.items():
        np.testing.assert_array_equal(kept[path], slot, err_msg=path)
    names = ("transformer_layer_1/", "pooled_dense/", "logits/")
    assert all(any(name in path for name in names) for path in moved_by_a_fit(compiled))


def test_freezing_under_the_optimizer_that_keras_hub_chose(model):
    optimizer = type(model.optimizer)
    model.jit_compile = False
    assert moved_by_a_fit(model) >= can_move(paths(model.trainable_variables))
    ft.train_only(model, select.head())
    assert moved_by_a_fit(model) == {v.path for v in model.weights if "logits" in v.path}
    assert type(model.optimizer) is optimizer


def test_the_rate_follows_what_learns(model):
    model.compile(**ft.presets.cross_entropy(), run_eagerly=True)
    schedule = model.optimizer._learning_rate
    for selector, rate in ((select.head(), 2e-3), (select.everything(), 5e-5)):
        ft.train_only(model, selector)
        bind = ft.callbacks.BindSchedule()
        model.fit(
            inputs_of(model), LABELS, batch_size=4, shuffle=False, verbose=0, callbacks=[bind]
        )
        assert schedule.rate == pytest.approx(rate)


def test_a_preset_computes_what_keras_computes(compiled):
    logits = np.asarray(compiled(inputs_of(compiled)))
    told = compiled.evaluate(inputs_of(compiled), LABELS, verbose=0, return_dict=True)
    log_softmax = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    assert told["loss"] == pytest.approx(-log_softmax[np.arange(8), LABELS].mean(), abs=1e-5)
    assert told["accuracy"] == pytest.approx((logits.argmax(-1) == LABELS).mean())


def test_keras_file(model, tmp_path):
    """KerasHub stores neither the arguments of `compile` nor the frozen layers."""
    every = paths(model.trainable_variables)
    ft.freeze(model, select.embeddings() | select.bottom(1))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", compile=False)
    inputs = inputs_of(model)
    np.testing.assert_allclose(again(inputs), model(inputs), rtol=0, atol=1e-6)
    assert names_and_roles(again) == names_and_roles(model)
    assert paths(again.trainable_variables) == every
    ft.freeze(again, select.embeddings() | select.bottom(1))
    assert paths(again.trainable_variables) == paths(model.trainable_variables)


def test_a_selector_beyond_the_blocks(hub):
    """DeBERTa's blocks share a table and cannot be separated, so they are one stage."""
    deberta = hub.DebertaV3Backbone(**SIZES, bucket_size=4)
    assert [role for _, role in names_and_roles(deberta)] == ["embeddings", "embeddings", "block"]
    with pytest.raises(ModelError, match=r"bottom\(2\) selects blocks beyond the 1 blocks of"):
        ft.freeze(deberta, select.bottom(2))


def test_the_stem_of_a_vision_transformer_is_no_block(hub):
    vit = hub.ViTBackbone(
        image_shape=(16, 16, 3), patch_size=8, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=12
    )
    assert names_and_roles(vit) == [
        ("vit_patching_and_embedding", "embeddings"),
        ("vit_encoder", "block"),
    ]
    classifier = hub.ViTImageClassifier(backbone=vit, num_classes=3)
    assert names_and_roles(classifier)[-1] == ("predictions", "head")


def test_both_towers_of_clip_are_cut(hub):
    sizes = {"hidden_dim": 8, "num_layers": 2, "num_heads": 2, "intermediate_dim": 12}
    image = hub.CLIPVisionEncoder(patch_size=8, image_shape=(16, 16, 3), name="image", **sizes)
    text = hub.CLIPTextEncoder(
        vocabulary_size=23, embedding_dim=8, max_sequence_length=8, name="text", **sizes
    )
    clip = hub.CLIPBackbone(vision_encoder=image, text_encoder=text, projection_dim=8)
    assert names_and_roles(clip)[:9] == [
        ("image/embedding", "embeddings"),
        ("image/pre_layer_norm", "embeddings"),
        ("image/encoder_block_0", "block"),
        ("image/encoder_block_1", "block"),
        ("image/layer_norm", "norm"),
        ("text/embedding", "embeddings"),
        ("text/encoder_block_0", "block"),
        ("text/encoder_block_1", "block"),
        ("text/layer_norm", "norm"),
    ]
    ft.freeze(clip, select.chain("image"))
    assert not image.trainable_variables and text.trainable_variables
