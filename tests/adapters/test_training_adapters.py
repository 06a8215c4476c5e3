"""Training adapters: half precision, checkpointing, cached features, devices, learning rates."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers_models import token_batch

import finetune_tf as ft
from finetune_tf.adapters import IA3, Bottleneck, LoRA
from finetune_tf.adapters.layers import Factors, LowRank
from finetune_tf.errors import ModelError
from finetune_tf.training.schedule import HEAD_RATE, PRETRAINED_RATE

TESTS = Path(__file__).parents[1]
REFERENCES = TESTS / "references"
TOKENS, ANSWERS = token_batch(16)
TEXTS = ["a very good film", "bad", "the actor was great and the story was good", "a dull story"]


def adapted(checkpoint, adapter, selector=None, seed=1, **options):
    """Returns a model with an adapter whose variables are not at their start."""
    keras.utils.set_random_seed(seed)
    model = ft.load(checkpoint, labels=["bad", "good"], new_head=True, **options)
    ft.adapters.add(model, adapter, selector)
    random = np.random.default_rng(seed)
    for variable in ft.select.adapters()(model):
        variable.assign(variable + random.normal(0, 0.1, variable.shape))
    return model


def fitted(model, epochs=2, optimizer=None):
    model.compile(optimizer or keras.optimizers.SGD(0.1))
    return model.fit(
        TOKENS, ANSWERS, batch_size=8, epochs=epochs, shuffle=False, verbose=0
    ).history["loss"]


@pytest.mark.parametrize(
    "adapter",
    [
        LoRA(rank=2, targets="all", dropout=0.2),
        pytest.param(LoRA(rank=2, targets="all", use_dora=True), marks=pytest.mark.slow),
        pytest.param(IA3(), marks=pytest.mark.slow),
    ],
    ids=["LoRA", "DoRA", "IA3"],
)
@pytest.mark.slow
def test_gradient_checkpointing_changes_nothing(tiny_bert, adapter):
    models = [
        adapted(tiny_bert, adapter, dropout=0.1, gradient_checkpointing=checkpoints)
        for checkpoints in (False, True)
    ]
    wanted, found = map(fitted, models)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    for variable, other in zip(models[0].weights, models[1].weights, strict=True):
        np.testing.assert_allclose(other, variable, atol=1e-5, err_msg=variable.path)


@pytest.mark.slow
def test_checkpointed_blocks_with_and_without_adapters_are_not_confused(tiny_bert):
    """The traced function of a block is shared by blocks that compute the same."""
    model = adapted(tiny_bert, LoRA(rank=2), ft.select.blocks(-1), gradient_checkpointing=True)
    other = adapted(tiny_bert, LoRA(rank=2), ft.select.blocks(-1))
    ft.train_only(model, ft.select.everything())
    ft.train_only(other, ft.select.everything())
    np.testing.assert_allclose(fitted(model, 1), fitted(other, 1), rtol=1e-5)
    for each in (model, other):
        ft.adapters.switch(each, None)
    np.testing.assert_allclose(fitted(model, 1), fitted(other, 1), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "adapter",
    [LoRA(rank=2, targets="all", dropout=0.1), LoRA(rank=2, use_dora=True), IA3(), Bottleneck(8)],
    ids=["LoRA", "DoRA", "IA3", "Bottleneck"],
)
def test_mixed_precision(tiny_bert, adapter):
    model = adapted(tiny_bert, adapter, dtype="mixed_bfloat16")
    assert all(v.dtype == "float32" for v in model.weights if "adapter" in v.path)
    whole = adapted(tiny_bert, adapter)
    whole.set_weights(model.get_weights())
    np.testing.assert_allclose(model(TOKENS), whole(TOKENS), atol=0.03)
    losses = fitted(model, 5)
    assert losses[-1] < losses[0]


def test_the_norm_of_dora_is_not_rounded(tiny_bert):
    """bfloat16 has three digits, so a rounded kernel would have another norm."""
    model = adapted(tiny_bert, LoRA(rank=2, use_dora=True), dtype="mixed_bfloat16")
    layer = model.get_layer("block_0").attention.query
    adapter = layer.adapter_default
    product = layer.kernel.numpy() + adapter.scale * adapter.lora_a.numpy() @ adapter.lora_b.numpy()
    expected = adapter.magnitude.numpy() / np.linalg.norm(product, axis=0)
    with keras.src.backend.common.variables.AutocastScope("bfloat16"):
        np.testing.assert_allclose(adapter._ratio(layer.kernel), expected, rtol=1e-5)


@pytest.mark.slow
def test_cached_features_below_the_adapted_blocks(tiny_bert):
    data = ft.data.from_arrays(TEXTS * 3, ["good", "bad", "good", "bad"] * 3)
    losses = []
    for cached in (False, True):
        model = adapted(tiny_bert, LoRA(rank=2, targets="all"), ft.select.blocks(-1))
        learner = ft.cache_features(model) if cached else model
        learner.compile(**ft.presets.cross_entropy(learning_rate=1e-2))
        batches = data.batches(learner, batch_size=4)
        losses.append(learner.fit(batches, epochs=3, verbose=0).history["loss"])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    with pytest.raises(ModelError, match="This is the upper part of a model, from ft.cache_feat"):
        ft.adapters.switch(learner, None)
    # Adapters that are switched change the features below the cut, and the traced functions.
    before = next(iter(data.batches(learner, 4)))[0]["cached_features"].numpy()
    ft.adapters.add(model, LoRA(rank=2), ft.select.blocks(0, 1), name="below")
    for variable in ft.select.adapters("below")(model):
        variable.assign(variable + 0.1)
    with pytest.raises(ModelError, match="block_0 learn by now, but are below the cut"):
        data.batches(learner, 4)
    ft.train_only(model, ft.select.head())
    after = next(iter(data.batches(learner, 4)))[0]["cached_features"].numpy()
    assert np.abs(after - before).max() > 1e-3
    ft.adapters.switch(model, None)
    again = next(iter(data.batches(learner, 4)))[0]["cached_features"].numpy()
    np.testing.assert_array_equal(again, before)


@pytest.mark.parametrize(
    ("width", "rate"), [(24, 2e-3), (384, 1e-3), (768, 6e-4), (1024, 5e-4), (4096, 2e-4)]
)
def test_wide_models_get_lower_rates(width, rate):
    for inputs, units in ((width, width), (width, 4 * width), (4 * width, width)):
        assert LowRank("default", inputs, units, rank=4, alpha=8).usual_rate == rate
    assert Factors("default", width, width).usual_rate == 3e-3


def test_the_automatic_learning_rate(tiny_bert):
    model = ft.load(tiny_bert, labels=2)
    model.compile(**ft.presets.cross_entropy())

    def rate():
        schedule = model.optimizer._learning_rate
        schedule.resolve(model)
        return schedule.rate

    assert rate() == PRETRAINED_RATE
    ft.adapters.add(model, LoRA())
    assert rate() == pytest.approx(2e-3)  # of so narrow a model
    ft.adapters.add(model, IA3(), name="factors")
    assert rate() == pytest.approx(3e-3)
    ft.adapters.switch(model, ["default", "factors"])
    assert rate() == pytest.approx(2e-3)
    ft.train_only(model, ft.select.head())
    assert rate() == HEAD_RATE
    ft.train_only(model, ft.select.adapters() | ft.select.blocks(-1))
    assert rate() == PRETRAINED_RATE


@pytest.mark.slow
def test_accumulated_gradients(tiny_bert):
    model = adapted(tiny_bert, LoRA(rank=2))
    model.compile(**ft.presets.cross_entropy(learning_rate=1e-2, accumulate=2))
    losses = model.fit(TOKENS, ANSWERS, batch_size=8, epochs=6, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


FAMILIES = {
    "deberta": ("deberta/text-classification", LoRA(rank=2, targets="all")),
    "modernbert": ("modernbert/text-classification", LoRA(rank=2, use_dora=True)),
    "gpt2": ("gpt2/text-classification", IA3()),
    "llama": ("llama/text-classification", LoRA(rank=2, targets=["q_proj", "feed_forward/gate"])),
    "vit": ("vit/image-classification", Bottleneck(4)),
    "swin": ("swin/image-classification", LoRA(rank=2)),
    "albert": ("albert/text-classification", LoRA(rank=2)),
    "bart": ("bart/text2text-generation", LoRA(rank=2)),
}


SLOW = ("albert", "bart", "deberta", "swin")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in FAMILIES]
)
def test_families(name, tmp_path):
    folder, adapter = FAMILIES[name]
    arrays = np.load(REFERENCES / folder / "expected.npz")
    model = ft.load(REFERENCES / folder)
    inputs = {t.name: arrays[t.name] for t in model.inputs if t.name in arrays}
    before = np.asarray(model(inputs))
    ft.adapters.add(model, adapter)
    np.testing.assert_allclose(model(inputs), before, atol=1e-5)
    random = np.random.default_rng(0)
    for variable in ft.select.adapters()(model):
        variable.assign(variable + random.normal(0, 0.3, variable.shape))
    model.compile(keras.optimizers.SGD(0.01))
    model.fit(inputs, arrays["labels"], verbose=0)
    after = np.asarray(model(inputs))
    assert np.abs(after - before).max() > 1e-4
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(inputs), after)
    if name == "vit":
        return
    again = ft.load(REFERENCES / folder)
    ft.adapters.load_peft(again, ft.adapters.save_peft(model, tmp_path / "peft"))
    np.testing.assert_allclose(again(inputs), after, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("adapter", [LoRA(rank=2, targets="all"), IA3()], ids=["LoRA", "IA3"])
def test_generation_reads_the_adapter(tiny_decoder, adapter):
    """Cached keys and values give the tokens that the complete forward pass gives."""
    model = ft.load(tiny_decoder)
    ids = [[5, 6, 7]]
    plain = model.generate(ids, max_new_tokens=6)
    logits = np.asarray(model(np.array(ids)))
    ft.adapters.add(model, adapter)
    for variable in ft.select.adapters()(model):
        noise = np.random.default_rng(0).normal(0, 0.4, variable.shape)
        variable.assign(variable + noise)
    found = model.generate(ids, max_new_tokens=6)
    assert np.abs(model(np.array(ids)) - logits).max() > 1e-2
    tokens = list(ids[0])
    for _ in range(6):
        tokens.append(int(np.argmax(model(np.array([tokens]))[0, -1])))
    np.testing.assert_array_equal(found[0], tokens[3 : 3 + len(found[0])])
    ft.adapters.switch(model, None)
    np.testing.assert_array_equal(model.generate(ids, max_new_tokens=6)[0], plain[0])


@pytest.mark.slow
def test_a_language_model_learns_without_its_head(tiny_decoder):
    model = ft.load(tiny_decoder, config={"tie_word_embeddings": True})
    ft.adapters.add(model, LoRA(rank=2))
    assert {v.path.rpartition("/")[2] for v in model.trainable_variables} == {"lora_a", "lora_b"}
    data = ft.data.from_arrays(TEXTS)
    model.compile(**ft.presets.cross_entropy(learning_rate=1e-2))
    losses = model.fit(data.batches(model, 4), epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_an_adapter_of_an_untied_head_is_not_bypassed():
    """Training a language model reads the kernel of its head, unless that has an adapter."""
    folder = REFERENCES / "mistral/text-generation"
    arrays = np.load(folder / "expected.npz")
    model = ft.load(folder)
    ft.adapters.add(model, LoRA(rank=2, targets=["lm_head"]))
    ids = np.maximum(arrays["input_ids"], 0)
    model.compile(**ft.presets.cross_entropy(learning_rate=1e-2))
    losses = model.fit(ids, np.roll(ids, -1, 1), epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    with pytest.raises(ModelError, match="Resize the vocabulary before"):
        model.resize_token_embeddings(30)


@pytest.mark.slow
def test_exported_graphs_contain_adapters(tiny_bert, tmp_path):
    import tensorflow as tf

    model = adapted(tiny_bert, LoRA(rank=2, targets="all", use_dora=True), dtype="mixed_bfloat16")
    model.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(tmp_path / "served").signatures["serving_default"]
    inputs = {name: tf.constant(np.ones((2, 5), "int32")) for name in model.input}
    whole = adapted(tiny_bert, LoRA(rank=2, targets="all", use_dora=True))
    whole.set_weights(model.get_weights())
    np.testing.assert_allclose(served(**inputs)["logits"], whole(inputs), atol=1e-5)


SCRIPT = """
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    import sys
    import keras
    import numpy as np
    from helpers_models import token_batch

    import finetune_tf as ft

    tokens, answers = token_batch(16)
    mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

    def losses(strategy):
        with strategy.scope():
            keras.utils.set_random_seed(0)
            model = ft.load(sys.argv[1], labels=2)
            model.compile(**ft.presets.cross_entropy(learning_rate=1e-2))
        model.fit(tokens, answers, batch_size=8, shuffle=False, verbose=0)
        ft.adapters.add(model, ft.adapters.LoRA(rank=2, targets="all", use_dora=True))
        history = model.fit(tokens, answers, batch_size=8, epochs=3, shuffle=False, verbose=0)
        ft.adapters.merge(model)
        ft.adapters.unmerge(model)
        after = model.fit(tokens, answers, batch_size=8, shuffle=False, verbose=0)
        return np.array(history.history["loss"] + after.history["loss"])

    one, two = losses(tf.distribute.get_strategy()), losses(mirrored)
    print(one, two)
    assert np.abs(one - two).max() < 1e-4 and one[-1] < one[0]
    print("done")
"""


@pytest.mark.slow
def test_two_devices_learn_as_one(tiny_bert):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(SCRIPT), str(tiny_bert)],
        env={"PYTHONPATH": f"{TESTS}:{TESTS.parent}", "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("done\n")


@pytest.mark.slow
def test_weights_of_adapters_are_interpolated(tiny_bert, tmp_path):
    model = adapted(tiny_bert, LoRA(rank=2))
    fitted(model, 1)
    model.save(tmp_path / "before.keras")
    before = keras.saving.load_model(tmp_path / "before.keras")
    fitted(model, 1)
    between = ft.interpolate(before, model, 0.5)
    for first, last, found in zip(before.weights, model.weights, between.weights, strict=True):
        np.testing.assert_allclose(found, (np.array(first) + np.array(last)) / 2, atol=1e-6)
    assert between.get_layer("block_0").attention.query.active_adapters == ("default",)


def test_fuse_refuses_adapters(tiny_bert):
    image = ft.load(REFERENCES / "vit/image-classification", "image-feature-extraction")
    text = ft.load(tiny_bert, "feature-extraction")
    ft.adapters.add(text, LoRA())
    with pytest.raises(ModelError, match="The text_model has adapters, which fuse would lose. Wri"):
        ft.fuse(image, text)


ON_JAX = """
    import sys
    import keras
    import numpy as np
    from helpers_models import token_batch

    import finetune_tf as ft

    assert keras.backend.backend() == "jax"
    tokens, answers = token_batch(16)
    model = ft.load(sys.argv[1], labels=2)
    adapter = ft.adapters.LoRA(rank=2, targets="all", use_dora=True, dropout=0.1)
    ft.adapters.add(model, adapter)
    model.compile(**ft.presets.cross_entropy(learning_rate=1e-2))
    losses = model.fit(tokens, answers, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    adapted, weights = np.array(model(tokens)), model.get_weights()
    ft.adapters.merge(model)
    assert np.abs(np.array(model(tokens)) - adapted).max() < 1e-5
    ft.adapters.unmerge(model)
    assert all(np.array_equal(a, b) for a, b in zip(weights, model.get_weights()))
    model.save(sys.argv[2])
    again = keras.saving.load_model(sys.argv[2])
    assert np.abs(np.array(again(tokens)) - adapted).max() < 1e-6

    x = keras.Input((6, 12))
    attention = keras.layers.MultiHeadAttention(3, 4)(x, x)
    foreign = keras.Model(x, keras.layers.Dense(2)(attention))
    ft.adapters.add(foreign, ft.adapters.LoRA(rank=2))
    foreign.compile("adam", "mse")
    inputs = np.random.default_rng(0).normal(size=(8, 6, 12)).astype("float32")
    losses = foreign.fit(inputs, inputs[..., :2], epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    print("done")
"""


@pytest.mark.slow
def test_jax(tiny_bert, tmp_path):
    pytest.importorskip("jax")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(ON_JAX), str(tiny_bert)]
        + [str(tmp_path / "model.keras")],
        env={**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": f"{TESTS}:{TESTS.parent}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("done\n")
