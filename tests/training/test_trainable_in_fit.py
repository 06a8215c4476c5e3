"""`trainable` set by a callback while a fit runs takes effect from the next step on."""

import keras
import numpy as np
import pytest
from helpers_models import small_model, token_batch

import finetune_tf as ft
from finetune_tf import select
from finetune_tf.compat import TFBertForSequenceClassification
from finetune_tf.training import AdamW

TOKENS, ANSWERS = token_batch(16)
ALL = {"embeddings", "block_0", "norm", "block_1", "classifier"}
# Unfreezing layers below the head with a high rate gives a warning; the rate is for the test.
pytestmark = pytest.mark.filterwarnings("ignore:A learning rate of 0.01")


class Act(keras.callbacks.Callback):
    """Changes the model once, in the second epoch, and records the layers that are updated."""

    def __init__(self, when, act):
        super().__init__()
        self.when, self.act, self.epoch, self.moved = when, act, 0, []

    def values(self):
        return {v.path: np.array(v.numpy()) for v in self.model.weights}

    def hook(self, when):
        if self.when == when and self.epoch == 1:
            self.act(self.model)
            self.when = "done"

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        self.hook("epoch begin")
        self.before = self.values()

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 1:
            self.hook("batch begin")

    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            self.hook("batch end")

    def on_epoch_end(self, epoch, logs=None):
        after = self.values()
        moved = {p for p in after if not np.array_equal(self.before[p], after[p])}
        self.moved.append({path.split("/")[0] for path in moved})
        self.hook("epoch end")


def thaw_model(model):
    model.trainable = True


def thaw_layer(model):
    model.get_layer("block_1").trainable = True


def thaw_variables(model):
    for variable in model.get_layer("block_1").weights:
        variable.trainable = True


def thaw_by_selector(model):
    ft.train_only(model, select.head() | select.blocks(-1))


def head_only(optimizer=None):
    keras.utils.set_random_seed(0)
    model = small_model()
    with ft.messages.quiet():
        ft.train_only(model, select.head())
        model.compile(optimizer or AdamW(1e-2))
    return model


def fitted(model, act, when):
    watcher = Act(when, act)
    model.fit(
        TOKENS, ANSWERS, batch_size=4, epochs=3, shuffle=False, verbose=0, callbacks=[watcher]
    )
    return watcher.moved


@pytest.mark.parametrize(
    "when",
    [
        "epoch begin",
        *(
            pytest.param(when, marks=pytest.mark.slow)
            for when in ("batch begin", "batch end", "epoch end")
        ),
    ],
)
@pytest.mark.parametrize(
    ("act", "learning"),
    [
        (thaw_model, ALL),
        (thaw_layer, {"block_1", "classifier"}),
        (thaw_variables, {"block_1", "classifier"}),
        (thaw_by_selector, {"block_1", "classifier"}),
    ],
)
def test_thawing_takes_effect_at_once(act, learning, when):
    model = head_only()
    second = {"classifier"} if when == "epoch end" else learning
    assert fitted(model, act, when) == [{"classifier"}, second, learning]
    assert int(model.optimizer.iterations) == 12


def test_it_says_what_learns_now(capsys):
    model = head_only()
    fitted(model, thaw_layer, "epoch begin")
    assert "90 of 354 parameters are trainable." in capsys.readouterr().out.splitlines()


@pytest.mark.jax
def test_freezing_takes_effect_at_once():
    def freeze(model):
        model.get_layer("block_0").trainable = False

    model = small_model()
    model.compile(AdamW(1e-2))
    assert fitted(model, freeze, "epoch begin") == [ALL, ALL - {"block_0"}, ALL - {"block_0"}]


@pytest.mark.jax
def test_a_thawed_layer_learns_as_after_compiling_anew():
    """Runs the same steps in two fits, with the state of the optimizer retained."""
    inside = head_only(keras.optimizers.SGD(0.1))
    fitted(inside, thaw_layer, "epoch begin")
    outside = head_only(keras.optimizers.SGD(0.1))
    for epochs, act in ((1, thaw_layer), (2, None)):
        outside.fit(TOKENS, ANSWERS, batch_size=4, epochs=epochs, shuffle=False, verbose=0)
        if act:
            act(outside)
    for one, other in zip(inside.get_weights(), outside.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-7)


def test_what_does_not_change_is_not_traced_again():
    model = head_only()
    functions = set()
    note = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: functions.add(id(model.train_function))
    )

    def same(model):
        model.get_layer("block_1").trainable = False

    watcher = Act("batch begin", same)
    model.fit(TOKENS, ANSWERS, batch_size=4, epochs=3, verbose=0, callbacks=[watcher, note])
    assert len(functions) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrap",
    [
        lambda: AdamW(1e-2, gradient_accumulation_steps=2),
        lambda: keras.optimizers.LossScaleOptimizer(AdamW(1e-2), initial_scale=8.0),
        lambda: AdamW(1e-2, use_ema=True),
    ],
    ids=["accumulation", "loss scaling", "averaged weights"],
)
def test_with_what_an_optimizer_carries(wrap):
    model = head_only(wrap())
    start = [v.numpy().copy() for v in model.weights]
    assert fitted(model, thaw_model, "epoch begin")[1:] == [ALL, ALL]
    # An average that starts at 0 would reduce the weight almost to 0.
    for before, variable in zip(start, model.weights, strict=True):
        assert np.abs(variable.numpy() - before).max() < 0.3


def test_the_encoder_of_an_old_class(tiny_bert):
    model = TFBertForSequenceClassification.from_pretrained(tiny_bert, num_labels=2)
    model.bert.trainable = False
    model.compile(keras.optimizers.SGD(0.1))

    def thaw(model):
        model.bert.trainable = True

    first, second, _ = fitted(model, thaw, "epoch begin")
    assert first == {"classifier"}
    assert {"embeddings", "block_0", "block_1", "classifier"} <= second


@pytest.mark.parametrize("thaw", [thaw_model, lambda model: ft.train_only(model, ~select.norms())])
def test_below_the_cut_of_stored_features_it_is_an_error(thaw, tiny_bert):
    texts = ft.data.from_arrays(["a good film", "bad"] * 4, ["yes", "no"] * 4)
    model = ft.load(tiny_bert, labels=texts.labels)
    ft.train_only(model, select.head())
    learner = ft.cache_features(model)
    learner.compile()
    act = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: thaw(model) if epoch == 1 else None
    )
    with pytest.raises(ft.errors.ModelError, match="embeddings, .* learn by now, but are below"):
        learner.fit(texts.batches(learner, 4), epochs=3, verbose=0, callbacks=[act])


def test_train_on_batch_follows_too():
    model = head_only()
    model.train_on_batch(TOKENS, ANSWERS)
    before = model.get_layer("block_1").kernel.numpy()
    thaw_layer(model)
    model.train_on_batch(TOKENS, ANSWERS)
    assert not np.array_equal(before, model.get_layer("block_1").kernel.numpy())


def test_a_model_of_keras_with_the_callback():
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(3, name="below")(inputs)
    network = keras.Model(inputs, keras.layers.Dense(1, name="top")(hidden))
    network.get_layer("below").trainable = False
    network.compile(keras.optimizers.SGD(0.1), "mse")

    def thaw(model):
        model.get_layer("below").trainable = True

    watcher = Act("epoch begin", thaw)
    x = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
    follow = ft.callbacks.FollowTrainable()
    network.fit(x, x[:, :1], batch_size=4, epochs=2, verbose=0, callbacks=[watcher, follow])
    assert watcher.moved == [{"top"}, {"below", "top"}]
