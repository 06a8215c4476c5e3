"""Learning-rate schedules: values, the rate "auto", resumed fits, fits of unknown length."""

import json
import re

import keras
import numpy as np
import pytest
from helpers_models import small_model, token_batch

import finetune_tf as ft
from finetune_tf import select
from finetune_tf.errors import ArgumentError, ModelError
from finetune_tf.training import Schedule, WarmupLinearDecay

TOKENS, ANSWERS = token_batch()


class Rates(keras.callbacks.Callback):
    """Records the rate of each step."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_begin(self, batch, logs=None):
        self.seen.append(float(self.model.optimizer.learning_rate))


def rates_of_fit(model, x=TOKENS, y=ANSWERS, callbacks=(), **kwargs):
    rates = Rates()
    model.fit(x, y, callbacks=[*callbacks, rates], verbose=0, **kwargs)
    return rates.seen


def compiled(peak=1e-4, **options):
    model = small_model()
    preset = ft.presets.cross_entropy("sgd", peak, **options)
    model.compile(**preset)
    return model


def bound(steps, first_step=0, **kwargs):
    schedule = WarmupLinearDecay(1.0, **kwargs)
    schedule.bind(small_model(), steps, first_step)
    return schedule


@pytest.mark.jax
def test_rises_and_falls():
    schedule = bound(10, warmup_ratio=0.4)
    rates = [float(schedule(step)) for step in range(10)]
    expected = [1 / 4, 2 / 4, 3 / 4, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


def test_no_warm_up():
    schedule = bound(4, warmup_ratio=0.0)
    np.testing.assert_allclose([float(schedule(i)) for i in range(4)], [1, 0.75, 0.5, 0.25])


def test_counts_from_the_step_at_which_the_fit_begins():
    np.testing.assert_allclose(float(bound(4, 100, warmup_ratio=0)(101)), 0.75)


def test_never_negative_and_never_zero_within_the_fit():
    for steps in (1, 2, 3, 7, 50):
        schedule = bound(steps)
        assert min(float(schedule(step)) for step in range(steps)) > 0
        assert float(schedule(steps + 5)) == 0.0


@pytest.mark.slow
@pytest.mark.jax
def test_a_fit_tells_it_how_long_it_is_and_a_second_fit_starts_anew():
    model = compiled(warmup_ratio=0.5)
    first = rates_of_fit(model, batch_size=8, epochs=4)
    expected = [0.25, 0.5, 0.75, 1, 1, 0.75, 0.5, 0.25]
    np.testing.assert_allclose(first, np.array(expected) * 1e-4, rtol=1e-5)
    second = rates_of_fit(model, batch_size=8, epochs=4)
    np.testing.assert_allclose(second, first, rtol=1e-5)
    shorter = rates_of_fit(model, batch_size=4, epochs=1)
    np.testing.assert_allclose(shorter, np.array([0.5, 1, 1, 0.5]) * 1e-4, rtol=1e-5)


@pytest.mark.jax
@pytest.mark.slow
def test_other_numbers_compile_nothing_again(monkeypatch):
    """Neither another length of the fit nor a rate that is set by hand is part of a traced step."""
    model, traces = compiled(warmup_ratio=0.5), []
    step = type(model).train_step
    monkeypatch.setattr(
        type(model), "train_step", lambda self, *args: traces.append(1) or step(self, *args)
    )
    first = rates_of_fit(model, batch_size=8, epochs=2)
    count = len(traces)
    assert count
    longer = rates_of_fit(model, batch_size=8, epochs=3)
    model.optimizer.learning_rate = 3e-4
    held = rates_of_fit(model, batch_size=8, epochs=1)
    assert len(traces) == count
    np.testing.assert_allclose(first, np.array([0.5, 1, 1, 0.5]) * 1e-4, rtol=1e-5)
    np.testing.assert_allclose(longer[:3], np.array([1 / 3, 2 / 3, 1]) * 1e-4, rtol=1e-5)
    np.testing.assert_allclose(held, [3e-4, 3e-4], rtol=1e-5)


@pytest.fixture(scope="module")
def whole():
    """The rates of an uninterrupted fit of four epochs with two steps each."""
    return rates_of_fit(compiled(), batch_size=8, epochs=4)


@pytest.mark.slow
def test_a_fit_resumed_by_initial_epoch_goes_on_where_it_was(whole):
    model = compiled()
    # As if loaded after two epochs: a schedule of four epochs, of which two are done.
    model.optimizer.build(model.trainable_variables)
    model.optimizer.iterations.assign(4)
    rest = rates_of_fit(model, batch_size=8, epochs=4, initial_epoch=2)
    np.testing.assert_allclose(rest, whole[4:], rtol=1e-5)


class Interrupt(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_a_fit_resumed_by_backup_and_restore_goes_on_where_it_was(whole, tmp_path):
    interrupted = [keras.callbacks.BackupAndRestore(tmp_path), Interrupt()]
    with pytest.raises(KeyboardInterrupt):
        rates_of_fit(compiled(), batch_size=8, epochs=4, callbacks=interrupted)
    again = [keras.callbacks.BackupAndRestore(tmp_path)]
    rest = rates_of_fit(compiled(), batch_size=8, epochs=4, callbacks=again)
    np.testing.assert_allclose(rest, whole[4:], rtol=1e-5)


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_data_of_unknown_length_get_a_constant_rate_and_a_line(capsys):
    tf = pytest.importorskip("tensorflow")
    data = tf.data.Dataset.from_tensor_slices((TOKENS, ANSWERS)).batch(8)
    data = data.filter(lambda x, y: True)  # its length is unknown from here on
    model = compiled()
    rates = rates_of_fit(model, data, None, epochs=2)
    np.testing.assert_allclose(rates, 1e-4, rtol=1e-5)
    said = "The length of the data is unknown, so the rate stays at 0.0001."
    assert said in capsys.readouterr().out.splitlines()


@pytest.mark.jax
def test_constant_schedule():
    model = compiled("auto", schedule="constant")
    np.testing.assert_allclose(rates_of_fit(model, batch_size=8, epochs=2), [5e-3] * 4, rtol=1e-5)


class TestAuto:
    """5e-5 while pretrained stages are trainable, 2e-3 for the head alone (SGD: times 100)."""

    def peak(self, model):
        rates_of_fit(model)
        return pytest.approx(model.optimizer._learning_rate.rate)

    def test_everything_learns(self):
        assert self.peak(compiled("auto")) == 5e-3

    def test_only_the_head_learns(self):
        model = compiled("auto")
        ft.train_only(model, select.head())
        assert self.peak(model) == 0.2

    def test_it_follows_unfreezing(self):
        model = small_model()
        ft.train_only(model, select.head())
        model.compile(**ft.presets.cross_entropy("sgd"))
        assert self.peak(model) == 0.2
        ft.train_only(model, select.head() | select.blocks(-1))
        assert self.peak(model) == 5e-3

    @pytest.mark.jax
    def test_it_follows_unfreezing_inside_a_fit(self):
        class Unfreeze(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                if epoch == 1:
                    ft.train_only(self.model, select.everything())

        model = compiled("auto", schedule="constant")
        ft.train_only(model, select.head())
        rates = rates_of_fit(model, batch_size=16, epochs=3, callbacks=[Unfreeze()])
        np.testing.assert_allclose(rates, [0.2, 5e-3, 5e-3], rtol=1e-5)

    def test_of_adamw(self):
        model = small_model()
        schedule = ft.presets.cross_entropy()["optimizer"]._learning_rate
        schedule.resolve(model)
        assert schedule.rate == pytest.approx(5e-5)
        ft.train_only(model, select.head())
        schedule.resolve(model)
        assert schedule.rate == pytest.approx(2e-3)


class TestForeignModel:
    @pytest.fixture
    def network(self):
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2, name="top")])
        model.compile(**ft.presets.cross_entropy("sgd", 1e-2))
        return model

    def test_with_the_callback(self, network):
        x, y = TOKENS.astype("float32"), ANSWERS
        bind = ft.callbacks.BindSchedule()
        rates = rates_of_fit(network, x, y, callbacks=[bind], batch_size=4, epochs=1)
        np.testing.assert_allclose(rates, np.array([1, 1, 2 / 3.6, 1 / 3.6]) * 1e-2, rtol=0.3)

    @pytest.mark.needs_tensorflow(
        "JAX traces a step inside of its own files, which the warning names"
    )
    def test_without_it_a_warning_says_what_to_do(self, network):
        message = (
            "The schedule does not know the length of the fit, so the rate stays at 0.01. Pass "
            "callbacks=[ft.callbacks.BindSchedule()] to fit, or give the preset "
            "schedule='constant'."
        )
        with pytest.warns(UserWarning, match=re.escape(message)) as caught:
            network.fit(TOKENS.astype("float32"), ANSWERS, verbose=0)
        assert {warning.filename for warning in caught} == {__file__}


def test_a_reload_keeps_the_plan_but_not_the_fit():
    schedule = bound(10, warmup_ratio=0.4)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert type(again) is WarmupLinearDecay
    assert again.get_config() == schedule.get_config()


class SaveAtEpoch(keras.callbacks.Callback):
    """Saves the model when the third of four epochs begins, and at the end of the fit."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            self.model.save(self.folder / "middle.keras")

    def on_train_end(self, logs=None):
        self.model.save(self.folder / "end.keras")


@pytest.mark.slow
@pytest.mark.jax
def test_a_reload_in_the_middle_of_a_fit_goes_on_with_its_rates(whole, tmp_path):
    model = compiled()
    rates_of_fit(model, batch_size=8, epochs=4, callbacks=[SaveAtEpoch(tmp_path)])
    again = keras.saving.load_model(tmp_path / "middle.keras")
    rest = []
    for _ in range(4):
        rest.append(float(again.optimizer.learning_rate))
        again.train_on_batch(TOKENS[:8], ANSWERS[:8])
    np.testing.assert_array_equal(rest, whole[4:])
    np.testing.assert_array_equal(rates_of_fit(again, batch_size=8, epochs=4), whole)
    ended = keras.saving.load_model(tmp_path / "end.keras")
    assert float(ended.optimizer.learning_rate) == pytest.approx(1e-4)  # that fit is over


def test_the_state_of_a_fit_can_be_stored():
    schedule = bound(10, first_step=3, warmup_ratio=0.3)
    state = json.loads(json.dumps(schedule.state_dict()))
    again = WarmupLinearDecay(5.0)
    again.load_state_dict(state)
    assert [float(again(step)) for step in range(3, 13)] == [
        float(schedule(step)) for step in range(3, 13)
    ]
    assert again.state_dict() == state
    schedule.assign(0.5)
    again.load_state_dict(schedule.state_dict())
    assert again.held == 0.5 and float(again(7)) == 0.5


def test_reads_well():
    assert str(bound(10)) == "1, warm-up and linear decay"
    assert str(WarmupLinearDecay(2e-5)) == "2e-05, warm-up and linear decay"


def formula(shape, t, steps, warmup):
    """The schedules as transformers and PyTorch state them, with the warm-up one step ahead."""
    rising = min((t + 1) / warmup, 1) if warmup else 1
    left = min((steps - t) / (steps - warmup), 1)
    wave = (1 + np.cos(np.pi * (1 - left))) / 2
    if shape == "one-cycle":
        start = 1 / 25
        return (start + (1 - start) * (1 + np.cos(np.pi * (1 - rising))) / 2) * wave
    return rising * {"linear": left, "cosine": wave, "polynomial": left**2, "constant": 1}[shape]


SHAPES = ["linear", "cosine", "one-cycle", "polynomial", "constant"]


class TestShapes:
    def schedule(self, shape, steps=12, **options):
        schedule = Schedule(1.0, shape, **options)
        schedule.bind(small_model(), steps, 0)
        return schedule

    @pytest.mark.parametrize("warmup", [{"warmup_ratio": 0.25}, {"warmup_steps": 3}])
    @pytest.mark.parametrize("shape", SHAPES)
    def test_formulas(self, shape, warmup):
        schedule = self.schedule(shape, power=2.0, **warmup)
        rates = [float(schedule(step)) for step in range(12)]
        expected = [formula(shape, t, 12, 3) for t in range(12)]
        np.testing.assert_allclose(rates, expected, rtol=1e-5)
        assert min(rates) > 0 and max(rates) == pytest.approx(1)

    @pytest.mark.parametrize(
        ("shape", "warmup"), [("linear", 2), ("cosine", 2), ("one-cycle", 6), ("constant", 0)]
    )
    def test_default_warm_up(self, shape, warmup):
        schedule = self.schedule(shape, steps=20)
        rates = [float(schedule(step)) for step in range(20)]
        np.testing.assert_allclose(rates, [formula(shape, t, 20, warmup) for t in range(20)], 1e-5)

    def test_an_end_above_zero(self):
        schedule = self.schedule("cosine", end=0.1, warmup_steps=0)
        assert float(schedule(12)) == pytest.approx(0.1)
        assert float(schedule(6)) == pytest.approx(0.55)

    @pytest.mark.parametrize("shape", SHAPES)
    def test_a_reload(self, shape):
        schedule = self.schedule(shape, warmup_steps=5, power=3.0, end=0.2)
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
        assert type(again) is Schedule
        assert again.get_config() == schedule.get_config()
        again.bind(small_model(), 12, 0)
        assert [float(again(t)) for t in range(12)] == [float(schedule(t)) for t in range(12)]

    def test_a_config_of_an_earlier_version(self):
        config = {"peak": 1.0, "warmup_ratio": 0.25, "pretrained_rate": 5e-5, "head_rate": 2e-3}
        schedule = WarmupLinearDecay.from_config(config)
        assert schedule.get_config() == config
        schedule.bind(small_model(), 12, 0)
        expected = [formula("linear", t, 12, 3) for t in range(12)]
        np.testing.assert_allclose([float(schedule(t)) for t in range(12)], expected, rtol=1e-5)

    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.jax
    def test_in_a_fit(self, shape):
        rates = rates_of_fit(compiled(schedule=shape, warmup_steps=2), batch_size=8, epochs=4)
        np.testing.assert_allclose(
            rates,
            [
                1e-4 * formula("linear" if shape == "polynomial" else shape, t, 8, 2)
                for t in range(8)
            ],
            rtol=1e-4,
        )

    def test_warm_up_counts_optimizer_steps(self):
        model = compiled(warmup_steps=2, accumulate=2)
        rates = rates_of_fit(model, batch_size=4, epochs=2)  # eight batches, four steps
        np.testing.assert_allclose(rates[:4], np.array([0.25, 0.5, 0.75, 1]) * 1e-4, rtol=1e-5)

    @pytest.mark.parametrize("shape", ["linear", "cosine", "one-cycle"])
    def test_accumulated_batches_have_the_rates_of_larger_ones(self, shape):
        large = compiled(schedule=shape)
        expected = rates_of_fit(large, batch_size=8, epochs=3)
        small = compiled(schedule=shape, accumulate=4)
        found = rates_of_fit(small, batch_size=2, epochs=3)[3::4]  # with which a step is made
        np.testing.assert_allclose(found, expected, rtol=1e-5)

    def test_a_reload_in_the_middle_of_a_fit(self, tmp_path):
        model = compiled(schedule="cosine", warmup_steps=3)
        whole = rates_of_fit(model, batch_size=8, epochs=4, callbacks=[SaveAtEpoch(tmp_path)])
        again = keras.saving.load_model(tmp_path / "middle.keras")
        assert float(again.optimizer.learning_rate) == pytest.approx(whole[4])

    def test_what_it_reads_like(self):
        texts = {shape: str(self.schedule(shape)) for shape in SHAPES}
        assert texts == {
            "linear": "1, warm-up and linear decay",
            "cosine": "1, warm-up and cosine decay",
            "one-cycle": "1, one cycle",
            "polynomial": "1, warm-up and polynomial decay",
            "constant": "1, warm-up and a constant rate",
        }


class TestMistakes:
    def data(self):
        tf = pytest.importorskip("tensorflow")
        data = tf.data.Dataset.from_tensor_slices((TOKENS, ANSWERS)).batch(8)
        return data.filter(lambda x, y: True)  # its length is unknown

    @pytest.mark.parametrize("shape", ["cosine", "one-cycle", "polynomial"])
    def test_a_shape_that_needs_the_number_of_steps(self, shape):
        model = compiled(schedule=shape)
        message = (
            f"The schedule '{shape}' depends on the number of steps, but the length of the data is "
            "unknown. Pass steps_per_epoch=… to fit, or use schedule='constant'."
        )
        with pytest.raises(ModelError, match=re.escape(message)):
            model.fit(self.data(), verbose=0)
        data = self.data().repeat()
        rates = rates_of_fit(model, data, None, steps_per_epoch=2, epochs=2)
        assert len(set(rates)) == 4

    @pytest.mark.filterwarnings("ignore:Your input ran out of data")
    def test_a_warm_up_by_steps_needs_no_length(self, capsys):
        rates = rates_of_fit(compiled(warmup_steps=2), self.data(), None, epochs=2)
        np.testing.assert_allclose(rates[:4], [5e-5, 1e-4, 1e-4, 1e-4], rtol=1e-5)
        said = "The length of the data is unknown, so the rate stays at 0.0001 after the warm-up."
        assert said in capsys.readouterr().out.splitlines()

    def test_without_the_callback(self):
        network = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)])
        network.compile(**ft.presets.cross_entropy("sgd", 1e-2, schedule="cosine"))
        message = re.escape(
            "The schedule 'cosine' does not know the length of the fit. Pass "
            "callbacks=[ft.callbacks.BindSchedule()] to fit, or use schedule='constant'."
        )
        with pytest.raises(ModelError, match=message):
            network.fit(TOKENS.astype("float32"), ANSWERS, verbose=0)

    def test_a_warm_up_longer_than_the_fit(self, capsys):
        rates_of_fit(compiled(warmup_steps=20), batch_size=8, epochs=2)
        said = (
            "The warm-up takes 20 steps, but the fit only 4, so the rate does not reach its peak "
            "of 0.0001."
        )
        assert said in capsys.readouterr().out.splitlines()

    def test_two_warm_ups(self):
        message = "warmup_ratio=0.1 and warmup_steps=5 are both given. Leave one of them out."
        for make in (ft.presets.cross_entropy, Schedule, WarmupLinearDecay):
            with pytest.raises(ArgumentError, match=re.escape(message)):
                make(warmup_ratio=0.1, warmup_steps=5)
        with pytest.raises(ArgumentError, match="A warm-up is given beside learning_rate, which"):
            ft.presets.cross_entropy(learning_rate=Schedule(1e-4), warmup_steps=5)


@pytest.mark.slow
def test_schedules_of_transformers():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    theirs = {
        "linear": transformers.get_linear_schedule_with_warmup,
        "cosine": transformers.get_cosine_schedule_with_warmup,
        "constant": transformers.get_constant_schedule_with_warmup,
        "polynomial": transformers.get_polynomial_decay_schedule_with_warmup,
    }
    for shape, make in theirs.items():
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        steps = {} if shape == "constant" else {"num_training_steps": 12}
        if shape == "polynomial":
            steps |= {"power": 2.0, "lr_end": 0.1}
        schedule = make(optimizer, num_warmup_steps=3, **steps)
        rates = []
        for _ in range(13):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        ours = Schedule(1.0, shape, warmup_steps=3, power=2.0, end=0.1 * (shape == "polynomial"))
        ours.bind(small_model(), 12, 0)
        found = [float(ours(step)) for step in range(12)]
        np.testing.assert_allclose(found, [*rates[1:4], *rates[3:12]], rtol=1e-5)
