"""What a running fit of Keras consists of, in the installed version."""

import random
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers_batches import Batches

import finetune_tf
from finetune_tf.base import keras_fits as fits

ROOT = Path(finetune_tf.__file__).parent


def small_model():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"])
    return model


X, Y = np.arange(16, dtype="float32").reshape(8, 2), np.arange(8, dtype="float32")


class Look(keras.callbacks.Callback):
    """Calls a function when a fit begins, with the running fit."""

    def __init__(self, look):
        super().__init__()
        self.look = look

    def on_train_begin(self, logs=None):
        self.look(fits.running_fit())


def look(do, x=X, y=Y, **options):
    model = small_model()
    calls = [Look(do), *options.pop("callbacks", [])]
    options = {"batch_size": None if y is None else 2, "verbose": 0, **options}
    return model, model.fit(x, y, callbacks=calls, **options)


def test_no_other_module_uses_their_private_names():
    names = set(re.findall(r"\._[a-z]\w*", Path(fits.__file__).read_text()))
    assert "._flush_futures" in names
    ours = {"._getframe", "._history", "._symbolic_build"}  # not of Keras, or named in comments
    # The attributes that a class of the library gives itself may have the same names.
    pattern = re.compile("|".join(rf"(?<!\bself){re.escape(name)}\b" for name in names - ours))
    known = {"keras_fits.py", "keras_internals.py"}
    files = [path for path in ROOT.rglob("*.py") if path.name not in known]
    assert not [path for path in files if pattern.search(path.read_text())]


def test_the_running_fit():
    seen = []
    model, _ = look(seen.append, epochs=3, initial_epoch=1, validation_data=(X, Y))
    (fit,) = seen
    assert fit.model is model and (fit.epochs, fit.initial_epoch) == (3, 1)
    assert isinstance(fit.callbacks, keras.callbacks.CallbackList)
    assert fit.validation_data[0] is X
    assert fits.history_of(fit) is model.history
    assert fits.running_fit() is None


def test_callbacks_before_and_after_all_others():
    calls = []

    class Note(keras.callbacks.Callback):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def on_train_begin(self, logs=None):
            calls.append(("train", self.name, self.model.name, self.params["epochs"]))

        def on_epoch_begin(self, epoch, logs=None):
            calls.append((epoch, self.name))

    def enclose(fit):
        fits.enclose_callbacks(fit, Note("first"), Note("last"))

    model, _ = look(enclose, callbacks=[Note("other")])
    assert calls == [
        ("train", "other", model.name, 1),
        ("train", "last", model.name, 1),
        (0, "first"),
        (0, "other"),
        (0, "last"),
    ]


def test_a_fit_that_begins_in_the_middle():
    steps = []
    note = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: steps.append(batch),
        on_epoch_begin=lambda epoch, logs: steps.append(f"epoch {epoch}"),
    )
    first = []

    def begin(fit):
        fits.begin_at_epoch(fit.model, 1)
        fits.begin_at_step(fit.data, 2, lambda iterator: first.append(next(iterator)), None)
        assert fits.batches_of_epoch(fit.data) == 4
        assert fits.steps_per_epoch(fit.data) is None

    look(begin, callbacks=[note], epochs=3, shuffle=False)
    assert steps == ["epoch 1", 2, 3, "epoch 2", 0, 1, 2, 3]
    np.testing.assert_array_equal(first[0][0], X[:2])


def test_iterators_are_counted():
    opened = []
    look(lambda fit: opened.append(fits.Opened(fit.data)), epochs=3, shuffle=False)
    assert opened[0].count == 6  # two an epoch


@pytest.mark.slow
def test_kinds_of_data():
    kinds = []

    def note(fit):
        found = fits.data_of(fit.data)
        kinds.append((found.kind, found.shuffle, found.shuffle_seeds != (0, 0)))

    keras.utils.set_random_seed(0)
    look(note)
    look(note, shuffle=False)
    look(note, tf.data.Dataset.from_tensors((X, Y)), None, shuffle=False)
    assert kinds == [("arrays", True, True), ("arrays", False, False), ("dataset", False, False)]


def test_the_dataset_of_the_batches():
    of_tensorflow, of_keras, found = tf.data.Dataset.from_tensors((X, Y)), Batches(X, Y), []
    for data, targets in ((of_tensorflow, None), (of_keras, None), (X, Y)):
        look(lambda fit: found.append(fits.dataset_of(fit.data)), data, targets, shuffle=False)
    assert found == [of_tensorflow, of_keras, None]


def test_parts_of_datasets():
    base = tf.data.Dataset.range(3)
    shuffled = base.shuffle(3, seed=1)
    assert fits.shuffle_seeds(shuffled) != (0, 0)
    assert fits.shuffle_seeds(base) is None
    mapped = shuffled.map(lambda x: x + tf.random.uniform((), 0, 3, tf.int64))
    assert fits.parents_of(mapped) == [shuffled]
    assert "RandomUniformInt" in fits.operations_in(mapped)
    assert fits.operations_in(base) == set()


def test_metrics_exist_before_the_first_step():
    counts = []

    def build(fit):
        counts.append(len(fits.metrics_of(fit.model)))
        fits.build_metrics(fit.model, fit.data)
        counts.append(len(fits.metrics_of(fit.model)))

    model, _ = look(build)
    assert counts == [2, 4]
    assert len(fits.metrics_of(model)) == 4


def test_shapes_and_dtypes_of_batches():
    seen = []
    look(lambda fit: seen.append(fits.spec_of_batches(fit.data, None)))
    ((x, y),) = seen
    assert (x.shape[1:], y.dtype) == (X.shape[1:], tf.as_dtype(Y.dtype))
    x, y, weights = fits.spec_of_batches(None, (X, Y, None))
    assert (x.shape, y.shape, weights) == (X.shape, Y.shape, None)


def test_an_epoch_without_steps_has_the_results_of_the_metrics():
    def prepare(fit):
        fits.build_metrics(fit.model, fit.data)
        fits.begin_at_step(fit.data, 4, lambda iterator: None, None)
        fits.give_results_of_metrics(fit)

    _, history = look(prepare, epochs=2)
    assert history.history["loss"][0] == 0.0
    assert history.history["loss"][1] > 0.0
    assert history.history.keys() == {"loss", "mae"}


def test_a_variable_of_one_device_has_one_part():
    variable = keras.Variable(2.0)
    (part,) = fits.parts_of(variable)
    assert float(part.value()) == 2.0


@pytest.mark.parametrize("seed", [None, 5])
def test_random_numbers_return(seed):
    if seed is not None:
        keras.utils.set_random_seed(seed)

    def drawn():
        uniform = keras.random.uniform((2,)).numpy().tolist()
        own = [] if seed is None else tf.random.uniform((2,)).numpy().tolist()
        return random.random(), float(np.random.random()), uniform, own

    drawn()
    state = fits.random_state()
    first = drawn()
    assert drawn() != first
    fits.set_random_state(state)
    assert drawn() == first


def test_a_generator_that_did_not_exist_is_made_anew():
    keras.utils.set_random_seed(3)  # Keras forgets the generator, and makes one when it is needed
    state = fits.random_state()
    first = keras.random.uniform((2,)).numpy().tolist()
    assert keras.random.uniform((2,)).numpy().tolist() != first
    fits.set_random_state(state)
    assert keras.random.uniform((2,)).numpy().tolist() == first
