"""Adapters on models: what is added, trained, switched, merged and kept."""

import re

import keras
import numpy as np
import pytest
from helpers_models import token_batch

import finetune_tf as ft
from finetune_tf.adapters import IA3, Bottleneck, LoRA
from finetune_tf.adapters.attaching import adapted_layers
from finetune_tf.errors import ArgumentError, ArgumentTypeError, ModelError, UnknownArgumentError

TOKENS, ANSWERS = token_batch(8)


@pytest.fixture
def model(tiny_bert):
    keras.utils.set_random_seed(0)
    return ft.load(tiny_bert, labels=["no", "yes"])


def logits(model):
    return np.asarray(model(TOKENS))


def shake(model, name="default", seed=0):
    """Gives the variables of adapters random values, so that they change the outputs."""
    random = np.random.default_rng(seed)
    for variable in ft.select.adapters(name)(model):
        variable.assign(variable + random.normal(0, 0.2, variable.shape))


def layers_of(model, name=None):
    paths = [variable.path for variable in ft.select.adapters(name)(model)]
    return list(dict.fromkeys(path.partition("/adapter_")[0] for path in paths))


@pytest.mark.jax
def test_lora_starts_without_effect_and_only_it_and_the_head_learn(model, capsys):
    before = logits(model)
    capsys.readouterr()
    ft.adapters.add(model, LoRA(rank=4))
    assert capsys.readouterr().out == (
        "Added LoRA(rank=4) as 'default' to 4 layers (query, value). The weights of the model are "
        "frozen, the adapter and the head learn: 818 of 10,986 parameters are trainable. "
        "The learning rate 'auto' is 0.002.\n"
    )
    np.testing.assert_array_equal(logits(model), before)
    learning = {variable.path for variable in model.trainable_variables}
    chosen = ft.select.adapters() | ft.select.head()
    assert learning == {variable.path for variable in chosen(model)}
    assert "block_0/attention/query/adapter_default/lora_a" in learning
    assert [stage.name for stage in model.stages] == [
        *("embeddings", "block_0", "block_1", "pooler", "classifier")
    ]

    model.compile(keras.optimizers.SGD(0.1))
    kernel = model.get_layer("block_0").attention.query.kernel
    frozen = kernel.numpy()
    losses = model.fit(TOKENS, ANSWERS, epochs=6, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    np.testing.assert_array_equal(kernel, frozen)
    assert np.abs(model.get_layer("block_0").attention.query.adapter_default.lora_b).max() > 0


@pytest.mark.parametrize(
    ("adapter", "selector", "wanted"),
    [
        (LoRA(), ft.select.blocks(-1), ["block_1/attention/query", "block_1/attention/value"]),
        (
            LoRA(targets="all"),
            ft.select.blocks(0, 1),
            [
                *(f"block_0/attention/{name}" for name in ("query", "key", "value", "output")),
                *("block_0/feed_forward/intermediate", "block_0/feed_forward/output"),
            ],
        ),
        (LoRA(targets=["attention/output"]), ft.select.blocks(-1), ["block_1/attention/output"]),
        (
            LoRA(targets=["attention.output.dense"]),
            ft.select.blocks(-1),
            ["block_1/attention/output"],
        ),
        # As in PEFT, "dense" is the last part of many names, but not of the head's.
        (
            LoRA(targets=["dense"]),
            ~ft.select.blocks(0, 1),
            [
                *("block_1/attention/output", "block_1/feed_forward/intermediate"),
                *("block_1/feed_forward/output", "pooler/dense"),
            ],
        ),
        (LoRA(targets=r"bert\.encoder\.layer\.1\..*key"), None, ["block_1/attention/key"]),
        (LoRA(targets="block_0/.*/(key|output)"), ft.select.matching("attention"), [
            "block_0/attention/key", "block_0/attention/output"
        ]),
        (IA3(), ft.select.blocks(-1), [
            "block_1/attention/key", "block_1/attention/value", "block_1/feed_forward/output"
        ]),
        (Bottleneck(), ft.select.blocks(-1), [
            "block_1/attention/output", "block_1/feed_forward/output"
        ]),
        (Bottleneck(style="pfeiffer"), None, [
            "block_0/feed_forward/output", "block_1/feed_forward/output"
        ]),
    ],
)  # fmt: skip
def test_which_layers_get_an_adapter(model, adapter, selector, wanted):
    ft.adapters.add(model, adapter, selector)
    assert layers_of(model) == wanted


def test_patterns_of_ranks_and_alphas(model):
    ft.adapters.add(
        model,
        LoRA(
            rank=2,
            rank_pattern={"layer.0.attention.self.query": 3, "query": 4},
            alpha_pattern={"block_1.attention.value": 1},
        ),
    )
    found = {
        f"block_{i}/{name}": getattr(model.get_layer(f"block_{i}").attention, name).adapter_default
        for i in range(2)
        for name in ("query", "value")
    }
    assert {key: a.rank for key, a in found.items()} == {
        "block_0/query": 3, "block_0/value": 2, "block_1/query": 4, "block_1/value": 2
    }  # fmt: skip
    assert found["block_1/value"].scale == 1 / 2
    assert found["block_0/value"].scale == 16 / 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "adapter",
    [
        LoRA(rank=3, targets="all"),
        LoRA(rank=4, use_rslora=True, alpha=5),
        LoRA(rank=3, targets="all", use_dora=True),
        IA3(),
    ],
    ids=lambda adapter: adapter.kind,
)
def test_merging_changes_no_output_and_can_be_undone(model, adapter, tmp_path):
    plain = logits(model)
    ft.adapters.add(model, adapter)
    np.testing.assert_allclose(logits(model), plain, atol=1e-6)
    shake(model)
    adapted, weights = logits(model), model.get_weights()
    assert np.abs(adapted - plain).max() > 1e-3

    saved = ft.load(model.save_pretrained(tmp_path / "merged"))
    np.testing.assert_allclose(logits(saved), adapted, atol=1e-5)
    np.testing.assert_array_equal(logits(model), adapted)  # saving changes nothing

    ft.adapters.merge(model)
    np.testing.assert_allclose(logits(model), adapted, atol=1e-5)
    assert not any(v.trainable for v in ft.select.adapters()(model))
    ft.adapters.unmerge(model)
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(after, before)
    assert all(v.trainable for v in ft.select.adapters()(model))

    ft.adapters.merge(model)
    ft.adapters.remove(model, "default")
    assert not [v.path for v in model.weights if "adapter" in v.path]
    np.testing.assert_allclose(logits(model), adapted, atol=1e-5)


def test_all_factors_of_ia3_may_be_on_the_input(model):
    ft.adapters.add(model, IA3(feed_forward="all"))
    sizes = {v.path.split("/")[-3]: v.shape[0] for v in ft.select.adapters()(model)}
    assert {a.on_input for _, a in adapted_layers(model)} == {True}
    assert sizes["output"] > sizes["key"]


def test_several_adapters_are_switched(model, capsys):
    plain = logits(model)
    outputs = {}
    for seed, (name, adapter) in enumerate({"a": LoRA(), "b": IA3(), "c": LoRA(rank=2)}.items()):
        ft.adapters.add(model, adapter, name=name)
        shake(model, name, seed)
        outputs[name] = logits(model)
    assert len({outputs[name].tobytes() for name in outputs}) == 3

    ft.adapters.switch(model, "a")
    np.testing.assert_array_equal(logits(model), outputs["a"])
    learning = [v.path for v in model.trainable_variables if "adapter_" in v.path]
    assert learning == [v.path for v in ft.select.adapters("a")(model)]
    ft.adapters.switch(model, None)
    np.testing.assert_array_equal(logits(model), plain)
    assert capsys.readouterr().out.endswith("No adapter is active.\n")
    ft.adapters.switch(model, ["a", "c"])
    both = logits(model)
    assert np.abs(both - outputs["a"]).max() > 1e-3
    ft.adapters.merge(model, "c")
    np.testing.assert_allclose(logits(model), both, atol=1e-5)
    ft.adapters.unmerge(model)
    ft.adapters.remove(model, "c")
    np.testing.assert_allclose(logits(model), outputs["a"], atol=1e-6)
    assert layers_of(model, "b") and not ft.select.adapters("c").matches(model)


@pytest.mark.parametrize("order", [["factors", "matrices"], ["matrices", "factors"]])
def test_lora_and_ia3_on_one_layer_are_merged_in_any_order(model, order):
    """IA3 multiplies what LoRA adds, whichever of them was activated first."""
    layers = ["query", "output.dense"]
    ia3 = IA3(targets=layers, feed_forward=["output.dense"])
    for name, adapter in {"factors": ia3, "matrices": LoRA(targets=layers)}.items():
        ft.adapters.add(model, adapter, name=name)
        shake(model, name)
    ft.adapters.switch(model, order)
    adapted = logits(model)
    with pytest.raises(ModelError, match="'factors' multiplies what 'matrices' adds to the same"):
        ft.adapters.merge(model, "factors")
    ft.adapters.merge(model)
    np.testing.assert_allclose(logits(model), adapted, atol=1e-5)


def test_dora_is_merged_alone(model):
    ft.adapters.add(model, LoRA(use_dora=True), name="dora")
    ft.adapters.add(model, LoRA(), name="other")
    message = "The adapter 'dora' uses DoRA, which scales the complete kernel, so it cannot be mer"
    with pytest.raises(ModelError, match=message):
        ft.adapters.merge(model, ["dora", "other"])
    ft.adapters.switch(model, "dora")
    with pytest.raises(ModelError, match=message):
        ft.adapters.merge(model, "other")
    ft.adapters.merge(model)
    ft.adapters.unmerge(model)


def test_merged_kernels_that_were_trained_are_kept(model):
    """Restoring the kernels from before the merge would undo the fit."""
    ft.adapters.add(model, LoRA())
    shake(model)
    ft.adapters.merge(model)
    ft.train_only(model, ~ft.select.adapters())
    model.compile(keras.optimizers.SGD(0.05), keras.losses.SparseCategoricalCrossentropy(True))
    model.fit(TOKENS, ANSWERS, verbose=0)
    trained = logits(model)
    with pytest.raises(ModelError, match="8 kernels and biases have changed since the merge"):
        ft.adapters.unmerge(model)
    np.testing.assert_array_equal(logits(model), trained)
    ft.adapters.remove(model, "default")
    np.testing.assert_allclose(logits(model), trained, atol=1e-6)


@pytest.mark.slow
def test_a_compiled_model_follows(model):
    """The traced steps of fit, evaluate and predict do not keep the adapters of earlier traces."""
    model.compile(keras.optimizers.SGD(0.05))
    model.fit(TOKENS, ANSWERS, verbose=0)
    plain = model.predict(TOKENS, verbose=0)
    ft.adapters.add(model, LoRA(rank=2), name="a")
    shake(model, "a")
    assert np.abs(model.predict(TOKENS, verbose=0) - plain).max() > 1e-3
    before = {v.path: v.numpy() for v in model.weights}
    model.fit(TOKENS, ANSWERS, epochs=2, verbose=0)
    changed = {v.path for v in model.weights if not np.array_equal(v, before[v.path])}
    assert changed == {v.path for v in model.trainable_variables}
    assert any("adapter_a/lora_a" in path for path in changed)
    ft.adapters.switch(model, None)
    head = {v.path: v.numpy() for v in ft.select.head()(model)}
    model.fit(TOKENS, ANSWERS, verbose=0)
    assert {v.path for v in model.trainable_variables} == set(head)
    ft.adapters.remove(model, "a")
    model.fit(TOKENS, ANSWERS, verbose=0)


@pytest.mark.slow
def test_a_keras_file_keeps_adapters(model, tmp_path):
    ft.adapters.add(model, LoRA(rank=2, targets="all", dropout=0.1), name="first")
    shake(model, "first")
    ft.adapters.add(model, Bottleneck(size=5), name="second")
    shake(model, "second")
    ft.adapters.switch(model, ["first", "second"])
    ft.train_only(model, ft.select.adapters("second") | ft.select.head() | ft.select.norms())
    model.compile(keras.optimizers.SGD(0.01))
    model.fit(TOKENS, ANSWERS, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(logits(again), logits(model))
    assert [v.path for v in again.trainable_variables] == [
        v.path for v in model.trainable_variables
    ]
    again.fit(TOKENS, ANSWERS, verbose=0)
    ft.adapters.switch(again, None)
    ft.adapters.switch(model, None)
    for name in ("first", "second"):
        ft.adapters.remove(model, name)
    assert len(again.weights) > len(model.weights)


def test_a_keras_file_keeps_the_order_of_active_adapters(model, tmp_path):
    for name in ("first", "second"):
        ft.adapters.add(model, Bottleneck(size=4), name=name)
        shake(model, name)
    outputs = {}
    for order in (("first", "second"), ("second", "first")):
        ft.adapters.switch(model, order)
        outputs[order] = logits(model)
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(logits(again), outputs[order])
    one, other = outputs.values()
    assert np.abs(one - other).max() > 1e-4  # so the order matters


def test_a_merged_model_is_reloaded_without_its_copies(model, tmp_path):
    ft.adapters.add(model, LoRA())
    shake(model)
    ft.adapters.merge(model)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(logits(again), logits(model))
    with pytest.raises(ModelError, match="before 'default' was merged are not in memory: fi"):
        ft.adapters.unmerge(again)
    ft.adapters.remove(again, "default")
    np.testing.assert_array_equal(logits(again), logits(model))


def test_selectors_and_weights(model):
    ft.adapters.add(model, LoRA(rank=2), name="x")
    selector = ft.select.adapters("x") | ft.select.norms()
    again = ft.select.from_config(selector.get_config())
    assert str(again) == "(adapters('x') | norms())"
    assert [v.path for v in again(model)] == [v.path for v in selector(model)]
    assert len(ft.select.adapters()(model)) == 8
    with pytest.raises(ModelError, match=r"The selector adapters\('y'\) matches nothing"):
        ft.select.adapters("y")(model)
    weights = [weight + 1 for weight in model.get_weights()]
    model.set_weights(weights)
    np.testing.assert_array_equal(ft.select.adapters("x")(model)[1], np.ones((2, 24)))


def test_the_vocabulary_is_resized(tiny_decoder):
    model = ft.load(tiny_decoder)
    ft.adapters.add(model, LoRA(rank=2))
    shake(model)
    tokens = TOKENS % 20
    before = np.asarray(model(tokens))
    model.resize_token_embeddings(25)
    after = np.asarray(model(tokens))
    assert after.shape[-1] == 25
    np.testing.assert_allclose(after[..., : before.shape[-1]], before, atol=1e-5)


class TestErrors:
    def test_of_add(self, model):
        with pytest.raises(ArgumentError, match=r"^Expected an adapter such as ft.adapters.LoRA\("):
            ft.adapters.add(model, LoRA)
        with pytest.raises(ArgumentError, match="consists of letters, digits, '-' and '_', found"):
            ft.adapters.add(model, LoRA(), name="my adapter")
        with pytest.raises(ModelError, match="Expected a Keras model, for example from ft.load"):
            ft.adapters.add("bert", LoRA())
        with pytest.raises(ModelError, match=r"No layer of 'bert' matches targets=\['Wqkv'\]; it "):
            ft.adapters.add(model, LoRA(targets=["Wqkv"]))
        with pytest.raises(
            ModelError,
            match=r"^No layer of 'bert' matches targets=None among those that embeddings\(\) "
            r"selects; it has layers without any kernel\. Name layers with ",
        ):
            ft.adapters.add(model, LoRA(), ft.select.embeddings())
        for adapter, argument, text in (
            (LoRA(targets=["query", "vaule"]), "targets", "vaule"),
            (LoRA(rank_pattern={"query": 2, "kye": 4}), "rank_pattern", "kye"),
            (LoRA(alpha_pattern={"key": 4}), "alpha_pattern", "key"),
            # The first pattern that matches a layer counts.
            (
                LoRA(rank_pattern={"query": 2, "layer.0.*query": 4}),
                "rank_pattern",
                "layer.0.*query",
            ),
            (IA3(feed_forward=["outptu"]), "feed_forward", "outptu"),
            (IA3(feed_forward="outptu"), "feed_forward", "outptu"),
        ):
            message = f"{argument}= has {text!r}, which would have no effect: it matches none of"
            with pytest.raises(ModelError, match=re.escape(message)):
                ft.adapters.add(model, adapter)
        assert not [v.path for v in model.weights if "adapter" in v.path]
        ft.adapters.add(model, LoRA())
        with pytest.raises(ArgumentError, match="has an adapter 'default' already. Choose another"):
            ft.adapters.add(model, IA3())
        ft.adapters.merge(model)
        with pytest.raises(
            ModelError, match="^Adapters cannot be added while 'default' is merged into the kernels"
        ):
            ft.adapters.add(model, IA3(), name="other")
        with pytest.raises(ModelError, match="^Adapters cannot be switched while 'default' is mer"):
            ft.adapters.switch(model, None)
        with pytest.raises(ModelError, match="^Adapters cannot be merged while 'default' is merg"):
            ft.adapters.merge(model)

    def test_of_settings(self):
        with pytest.raises(ArgumentError, match="rank must be an integer >= 1, found 0"):
            LoRA(rank=0)
        with pytest.raises(ArgumentError, match="rank must be an integer >= 1, found 1.5"):
            LoRA(rank_pattern={"query": 1.5})
        with pytest.raises(ArgumentError, match="alpha must be a number > 0, found 0"):
            LoRA(alpha_pattern={"query": 0})
        with pytest.raises(ArgumentError, match="dropout must be a number >= 0 and < 1, or None"):
            LoRA(dropout=1)
        with pytest.raises(ArgumentError, match="bias must be 'none', 'all' or 'lora_only'"):
            LoRA(bias="some")
        with pytest.raises(ArgumentError, match=r"targets must be 'all', a list with names of lay"):
            LoRA(targets=[3])
        with pytest.raises(ArgumentError, match=r"targets='\(' is not a valid regular expression"):
            LoRA(targets="(")
        with pytest.raises(UnknownArgumentError, match="has no argument 'r'. Did you mean rank="):
            LoRA(r=8)
        with pytest.raises(ArgumentError, match="style must be 'houlsby' or 'pfeiffer', found 'x'"):
            Bottleneck(style="x")
        with pytest.raises(ArgumentTypeError, match="use_dora must be True or False, found 'no'"):
            LoRA(use_dora="no")

    def test_of_switch_merge_and_remove(self, model):
        with pytest.raises(ArgumentError, match="has no adapter 'x'; it has none"):
            ft.adapters.switch(model, "x")
        with pytest.raises(ModelError, match="No adapter is active, so there is nothing to merge"):
            ft.adapters.merge(model)
        with pytest.raises(ModelError, match="No adapter is merged. Merge first"):
            ft.adapters.unmerge(model)
        ft.adapters.add(model, LoRA(use_dora=True), name="a")
        ft.adapters.add(model, LoRA(), name="b")
        with pytest.raises(ArgumentError, match="has no adapter 'x'; it has 'a', 'b'"):
            ft.adapters.remove(model, "x")
        with pytest.raises(ModelError, match="The adapter 'a' uses DoRA, which scales the comple"):
            ft.adapters.switch(model, ["a", "b"])

    def test_of_bottlenecks(self, model, tmp_path):
        ft.adapters.add(model, Bottleneck())
        for call in (ft.adapters.merge, lambda m: m.save_pretrained(tmp_path / "x")):
            with pytest.raises(ModelError, match="The adapter 'default' is a bottleneck, which no"):
                call(model)
        with pytest.raises(ModelError, match="is a bottleneck, for which PEFT has no format"):
            ft.adapters.save_peft(model, tmp_path / "x")
        assert not (tmp_path / "x").exists()
        ft.adapters.switch(model, None)
        model.save_pretrained(tmp_path / "x")


@pytest.mark.slow
def test_what_would_lose_adapters_in_silence_is_refused(tiny_bert, tmp_path):
    model = ft.load(tiny_bert, labels=2)
    ft.adapters.add(model, LoRA(rank=2))
    extended = keras.Model(model.inputs, keras.layers.Dense(3)(model.output))
    message = "has adapters, which a copy of the model or its .keras file would lose."
    with pytest.raises(ModelError, match=message):
        extended.save(tmp_path / "extended.keras")
    with pytest.raises(ModelError, match=message):
        keras.models.clone_model(model)
    with pytest.raises(ModelError, match=message):
        ft.keep_blocks(model, [0])

    around = keras.Sequential([keras.Input((4,), dtype="int32"), model])  # the model records them
    around.save(tmp_path / "around.keras")
    again = keras.saving.load_model(tmp_path / "around.keras")
    ids = np.array([[2, 5, 6, 3]])
    np.testing.assert_array_equal(np.asarray(again(ids)), np.asarray(around(ids)))

    ft.adapters.merge(model)
    ft.adapters.remove(model, "default")
    extended.save(tmp_path / "extended.keras")
