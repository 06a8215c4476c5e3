"""A fit that is broken off and started again ends like one that was not, bit for bit."""

import collections

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers_models import ENGLISH, small_model, token_batch
from helpers_resume import broken_and_resumed, outcome

import finetune_tf as ft
from finetune_tf import select
from finetune_tf.callbacks import Resume
from finetune_tf.training import AdamW

TOKENS, ANSWERS = token_batch(20)
VALIDATION = TOKENS[:8], ANSWERS[:8]
pytestmark = pytest.mark.filterwarnings("ignore:A learning rate of")


def films(rows=20):
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(ENGLISH, random.integers(2, 9))) for _ in range(rows)]
    return ft.data.from_arrays(texts, ["good" if i % 3 else "bad" for i in range(rows)])


def preset(**options):
    return ft.presets.cross_entropy(**{"learning_rate": 1e-2, **options})


def on_arrays(compiled=None, prepare=None, **fit):
    """Makes a small model that is fitted on arrays."""
    model = small_model()
    with ft.messages.quiet():
        if prepare is not None:
            prepare(model)
        model.compile(**(compiled or preset()))
    arrays = {"x": TOKENS, "y": ANSWERS, "batch_size": 4, "epochs": 3, "shuffle": False}
    return model, arrays | {"validation_data": VALIDATION} | fit


class UnfreezeLater(keras.callbacks.Callback):
    """Unfreezes the upper block in the second epoch, and counts the epochs that it has seen."""

    seen = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.seen += 1
        if epoch == 1:
            self.model.get_layer("block_1").trainable = True


class Noise(keras.callbacks.Callback):
    """Moves a weight at random after each step, by all kinds of generators."""

    def __init__(self):
        super().__init__()
        self.own, self.last = np.random.default_rng(5), collections.deque([0.0], maxlen=3)

    def on_train_batch_end(self, batch, logs=None):
        kernel = self.model.get_layer("block_0").kernel
        self.last.append(float(self.own.normal()) + float(np.random.normal()))
        drawn = keras.random.uniform(kernel.shape) + tf.random.uniform(kernel.shape)
        kernel.assign_add(1e-3 * drawn * sum(self.last))


def early_stopping(**options):
    return keras.callbacks.EarlyStopping("val_loss", restore_best_weights=True, **options)


def plateau():
    return keras.callbacks.ReduceLROnPlateau("loss", patience=1, min_delta=10.0, verbose=0)


CASES = {
    "plain": lambda: on_arrays(),
    "shuffled arrays": lambda: on_arrays(shuffle=True),
    "validation split": lambda: on_arrays(validation_data=None, validation_split=0.2),
    "without validation": lambda: on_arrays(validation_data=None),
    "accumulation": lambda: on_arrays(preset(accumulate=3)),
    "averages": lambda: on_arrays({"optimizer": AdamW(1e-2, use_ema=True, ema_momentum=0.9)}),
    "loss scale": lambda: on_arrays(
        {
            "optimizer": keras.optimizers.LossScaleOptimizer(
                keras.optimizers.Adam(1e-2), initial_scale=8.0, dynamic_growth_steps=3
            )
        }
    ),
    "early stopping": lambda: on_arrays(
        callbacks=[early_stopping(patience=1, min_delta=0.5)], epochs=6
    ),
    "best weights": lambda: on_arrays(callbacks=[early_stopping(patience=2, min_delta=1e-4)]),
    "plateau": lambda: on_arrays(callbacks=[plateau()], epochs=4),
    "rates of epochs": lambda: on_arrays(
        callbacks=[keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5)]
    ),
    "unfreezing": lambda: on_arrays(
        prepare=lambda model: ft.train_only(model, select.head()), callbacks=[UnfreezeLater()]
    ),
    "head": lambda: on_arrays(prepare=lambda model: ft.train_only(model, select.head())),
    "random callback": lambda: on_arrays(callbacks=[Noise()]),
    "class weights": lambda: on_arrays(class_weight={"no": 2.0}),
    "three steps at once": lambda: on_arrays(preset() | {"steps_per_execution": 3}),
    "sgd": lambda: on_arrays(preset(optimizer="sgd")),
}
PLACES = [((0, 1),), ((0, 3), (1, 0)), ((1, 3), (2, 4)), ((1, "validation"), (2, 2))]


@pytest.mark.parametrize("name", CASES)
def test_a_broken_fit_ends_like_a_whole_one(name, tmp_path):
    """The places depend on the name, so that all of them occur."""
    make = CASES[name]
    expected = outcome(make)
    places = PLACES[sum(map(ord, name)) % len(PLACES)]
    if name == "three steps at once":
        places = ((0, 3), (2, 3))
    elif name in ("without validation", "validation split"):
        places = ((1, 3), (1, "epoch end"))
    elif name == "early stopping":
        places = ((1, 3),)
    broken_and_resumed(make, tmp_path, *places).require_same(expected)


@pytest.mark.slow
@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("name", CASES)
def test_every_case_at_every_place(name, places, tmp_path):
    make = CASES[name]
    known = [
        at for at in places
        if not (name == "three steps at once" and at[1] not in (0, 3, "validation"))
        and not (name in ("without validation", "validation split") and at[1] == "validation")
        and not (name == "early stopping" and at[0] > 1)
        and not (name == "validation split" and at[1] == 4)
    ]  # fmt: skip
    broken_and_resumed(make, tmp_path, *known).require_same(outcome(make))


def test_a_fit_without_breaks_is_not_changed_by_the_callback(tmp_path):
    make = CASES["best weights"]
    outcome(make, tmp_path, every_steps=1).require_same(outcome(make))


def test_a_finished_fit_returns_at_once(tmp_path, capsys):
    make = CASES["early stopping"]
    expected = outcome(make, tmp_path)
    assert len(expected.epochs) < 6
    capsys.readouterr()
    again = outcome(make, tmp_path)
    again.require_same(expected)
    assert (
        f"The run in {tmp_path}/fit-1 is finished after epoch {len(expected.epochs)}; nothing is "
        "trained.\n" in capsys.readouterr().out
    )


def test_a_fit_that_is_broken_off_at_its_end_repeats_its_end(tmp_path):
    make = CASES["early stopping"]
    expected = outcome(make)
    last = len(expected.epochs) - 1
    broken_and_resumed(make, tmp_path, (last, "end")).require_same(expected)


def test_two_fits_in_a_row_have_saves_of_their_own(tmp_path):
    def run(folder=None, at=None):
        results = []

        def twice():
            model, fit = on_arrays(epochs=2)
            callbacks = [] if folder is None else [Resume(folder, every_steps=2)]
            model.fit(**fit, callbacks=callbacks, verbose=0)
            results.append([variable.numpy() for variable in model.variables])
            if folder is not None:
                fit["callbacks"] = [Resume(folder, every_steps=2)]
            return model, fit

        return outcome(twice, None, at), results

    expected, (first,) = run()
    from helpers_resume import Broken

    with pytest.raises(Broken):
        run(tmp_path, (1, 3))
    resumed, (again,) = run(tmp_path)
    resumed.require_same(expected)
    assert all(map(np.array_equal, first, again))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fit-1", "fit-2"]


class TestBatches:
    """Batches of examples, whose cursor is moved to the place."""

    def make(self, compiled=None, **options):
        model = small_model()
        model.task.tokenizer = None
        return model, compiled, options

    @pytest.mark.parametrize("at", [(1, 3), (1, "validation")])
    def test_a_bert_with_dropout(self, at, tmp_path, tiny_bert):
        train = films()

        def make():
            model = ft.load(tiny_bert, labels=train.labels, dropout=0.2)
            model.compile(**preset(learning_rate=1e-3, accumulate=2))
            batches = train.batches(model, 4, shuffle=True, seed=1)
            validation = train.batches(model, 4, shuffle=True, seed=2)
            return model, {"x": batches, "validation_data": validation, "epochs": 2}

        with ft.messages.quiet():
            broken_and_resumed(make, tmp_path, at).require_same(outcome(make))
