"""Learning rates set by the user or by callbacks, with and without a preset's schedule."""

import keras
import numpy as np
import pytest
from helpers_models import small_model, token_batch

import finetune_tf as ft
from finetune_tf.errors import ArgumentError, ModelError

TOKENS, ANSWERS = token_batch(16)
PLATEAU = keras.callbacks.ReduceLROnPlateau
SCHEDULER = keras.callbacks.LearningRateScheduler
# Keras reads the rate in a way that NumPy will not allow some day.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


def compiled(*args, **kwargs):
    model = small_model()
    model.compile(*args, **kwargs)
    return model


def rates(model, *callbacks, epochs=3):
    """Returns the rate of each step of a fit with two steps per epoch."""
    seen = []

    def read(batch, logs):
        getattr(model, "jax_state_sync", int)()  # a number of Keras is in the state of JAX
        seen.append(float(model.optimizer.learning_rate))

    note = keras.callbacks.LambdaCallback(on_train_batch_begin=read)
    options = {"batch_size": 8, "epochs": epochs, "verbose": 0}
    model.fit(TOKENS, ANSWERS, callbacks=[*callbacks, note], **options)
    return np.array(seen)


class Set(keras.callbacks.Callback):
    """Sets the rate in the way of common scripts."""

    def __init__(self, how):
        super().__init__()
        self.how = how

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            self.how(self.model.optimizer)


def set_rate(optimizer):
    optimizer.learning_rate = 3e-5


def assign_rate(optimizer):
    optimizer.learning_rate.assign(3e-5)


CONSTANT = {"schedule": "constant"}


@pytest.mark.parametrize(
    "optimizer",
    ["adamw", *(pytest.param(n, marks=pytest.mark.slow) for n in ("adam", "sgd", "rmsprop"))],
)
@pytest.mark.parametrize("options", [{}, CONSTANT, {"learning_rate": 1e-4, **CONSTANT}])
@pytest.mark.jax
def test_a_callback_that_sets_the_rate(optimizer, options):
    found = rates(compiled(**ft.presets.cross_entropy(optimizer, **options)), Set(set_rate))
    np.testing.assert_allclose(found[2:], 3e-5, rtol=1e-5)
    assert found[0] > 3e-5


def test_the_end_of_a_schedule_is_said_once(capsys):
    model = compiled()

    class Halve(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.model.optimizer.learning_rate = 2e-5 / 2**epoch

    np.testing.assert_allclose(rates(model, Halve()), np.repeat([2e-5, 1e-5, 5e-6], 2), rtol=1e-5)
    line = (
        "The rate was set to 2e-05 and stays there: warm-up and decay of the preset end here. To "
        "keep them, give the preset learning_rate=2e-05 instead."
    )
    said = capsys.readouterr().out.splitlines()
    assert [text for text in said if text.startswith("The rate was set")] == [line]
    assert model.info.record["fits"][-1]["learning_rate"] == "5e-06, set by hand"


@pytest.mark.jax
def test_reduce_on_plateau_starts_at_the_peak(capsys):
    stuck = PLATEAU(monitor="loss", patience=0, min_delta=10.0, factor=0.5)
    found = rates(compiled(), stuck)
    np.testing.assert_allclose(found, np.array([1, 1, 1, 1, 0.5, 0.5]) * 5e-5, rtol=1e-5)
    said = "ReduceLROnPlateau sets the rate, so it starts at 5e-05, without warm-up and decay."
    assert said in capsys.readouterr().out.splitlines()


def test_a_scheduler_starts_at_the_peak():
    """It must not halve the rate of the first warm-up step, which is almost zero."""
    found = rates(compiled("adam"), SCHEDULER(lambda epoch, rate: rate / 2))
    np.testing.assert_allclose(found, np.repeat([2.5e-5, 1.25e-5, 6.25e-6], 2), rtol=1e-5)


@pytest.mark.jax
def test_constant_rates_are_variables():
    for learning_rate in ("auto", 5e-5):
        preset = ft.presets.cross_entropy(learning_rate=learning_rate, **CONSTANT)
        found = rates(compiled(**preset), Set(assign_rate))
        np.testing.assert_allclose(found, np.repeat([5e-5, 3e-5], [2, 4]), rtol=1e-5)


def test_a_constant_rate_set_by_hand_is_no_longer_automatic():
    model = compiled(**ft.presets.cross_entropy(**CONSTANT))
    rates(model, Set(assign_rate))
    ft.train_only(model, ft.select.head())
    np.testing.assert_allclose(rates(model), 3e-5, rtol=1e-5)


@pytest.mark.jax
def test_a_rate_set_before_the_fit_holds_in_it_and_after_a_reload(tmp_path):
    model = compiled()
    model.optimizer.learning_rate = 1e-5
    np.testing.assert_allclose(rates(model), 1e-5, rtol=1e-5)
    ft.train_only(model, ft.select.head())  # rebuilds the optimizer
    np.testing.assert_allclose(rates(model), 1e-5, rtol=1e-5)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(rates(again), 1e-5, rtol=1e-5)


@pytest.mark.parametrize("wrong", [-1.0, float("nan"), float("inf")])
def test_a_rate_that_is_none(wrong):
    with pytest.raises(ArgumentError, match="learning_rate must be a number >= 0, found"):
        compiled().optimizer.learning_rate = wrong


@pytest.mark.parametrize("callback", [PLATEAU(), SCHEDULER(lambda epoch: 1e-5)])
def test_schedules_of_keras_are_refused_before_the_first_step(callback):
    cosine = keras.optimizers.schedules.CosineDecay(1e-5, 10)
    message = (
        f"{type(callback).__name__} sets the learning rate, but the optimizer follows the schedule "
        r"CosineDecay, .* or ft\.presets\.cross_entropy\(learning_rate=2e-5, schedule='constant'\)"
    )
    for optimizer in (
        keras.optimizers.Adam(cosine),
        ft.presets.cross_entropy(learning_rate=cosine)["optimizer"],
    ):
        model = compiled(optimizer)
        with pytest.raises(ModelError, match=message):
            rates(model, callback)
        assert int(model.optimizer.iterations) == 0


def test_callbacks_of_ones_own_get_the_line_to_write():
    cosine = keras.optimizers.schedules.CosineDecay(1e-5, 10)
    with pytest.raises(ModelError, match="A callback sets the learning rate, but the optimizer"):
        rates(compiled(keras.optimizers.Adam(cosine)), Set(set_rate))
    with pytest.raises(ModelError, match=r"Write optimizer\.learning_rate = rate, or pass schedu"):
        rates(compiled(), Set(assign_rate))


class TestWarning:
    """The warning about a rate that is too high comes once, when training starts."""

    def test_thawing_before_a_compile_that_lowers_the_rate_is_no_mistake(self, recwarn):
        model = small_model()
        ft.train_only(model, ft.select.head())
        model.compile(keras.optimizers.Adam(1e-3))
        rates(model, epochs=1)
        ft.train_only(model, ft.select.everything())
        model.compile(keras.optimizers.Adam(2e-5))
        rates(model, epochs=1)
        assert not recwarn.list

    def test_thawing_without_one_is_told_when_the_fit_starts(self):
        model = small_model()
        ft.train_only(model, ft.select.head())
        model.compile(keras.optimizers.Adam(1e-3))
        ft.train_only(model, ft.select.everything())
        with pytest.warns(UserWarning, match="A learning rate of 0.001 usually ruins") as caught:
            rates(model, epochs=1)
        assert [warning.filename for warning in caught] == [__file__]
        rates(model, epochs=1)  # already warned: another warning would be an error

    def test_what_compile_has_told_fit_does_not_repeat(self):
        model = small_model()
        with pytest.warns(UserWarning, match="A learning rate of 0.001 usually ruins"):
            model.compile(keras.optimizers.Adam(1e-3))
        rates(model, epochs=1)


def test_few_steps_get_a_hint(capsys):
    hint = "This fit takes only 2 optimizer steps, which is rarely enough. Use more epochs or a"
    model = compiled()
    rates(model, epochs=1)
    assert hint in capsys.readouterr().out
    rates(model, epochs=5)
    assert "rarely enough" not in capsys.readouterr().out
