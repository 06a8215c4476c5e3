"""When the training step is compiled as a whole by XLA, without `compile(jit_compile=…)`."""

import keras
import numpy as np
import pytest

import finetune_tf as ft
from finetune_tf.training import whole_step

pytestmark = [
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="JAX always compiles"),
    pytest.mark.filterwarnings("ignore:A learning rate of"),
]
TEXTS = ["a good film", "a bad film", "the story was very good", "a poor story"] * 6
TRAIN = ft.data.from_arrays(TEXTS, ["good", "bad"] * 12)


@pytest.fixture
def gpu(monkeypatch):
    """Stands for a GPU, on which a fit of six steps is a long one."""
    monkeypatch.setattr(whole_step, "accelerator_names", lambda: ["GPU"])
    monkeypatch.setattr(whole_step, "WORTH_COMPILING", 6)


def model_of(checkpoint, **options):
    keras.utils.set_random_seed(0)
    model = ft.load(checkpoint, labels=TRAIN.labels)
    model.compile(**ft.presets.cross_entropy("sgd", learning_rate=0.1), **options)
    return model


class Compiled(keras.callbacks.Callback):
    """Notes in each epoch whether the step is compiled as a whole."""

    def __init__(self):
        super().__init__()
        self.found = []

    def on_epoch_end(self, epoch, logs=None):
        self.found.append(self.model.jit_compile)


def fitted(model, batches, **options):
    """Returns whether the step of each epoch was compiled."""
    noting = Compiled()
    model.fit(batches, epochs=2, verbose=0, callbacks=[noting], **options)
    assert model.jit_compile is False  # for evaluations of other shapes
    return noting.found


@pytest.mark.slow
def test_a_long_fit_of_one_shape_has_the_same_numbers(tiny_bert, gpu, capsys):
    weights = []
    for chosen in ({"jit_compile": False}, {}):
        model = model_of(tiny_bert, **chosen)
        batches = TRAIN.batches(model, 8, shuffle=True, packing=16)
        validation = TRAIN.batches(model, 8, packing=16)
        assert fitted(model, batches, validation_data=validation) == [not chosen] * 2
        said = "XLA compiles the training step, because all batches have one shape"
        assert (said in capsys.readouterr().out) == (not chosen)
        weights.append([each.numpy() for each in model.weights])
        model.evaluate(TRAIN.batches(model, 5), verbose=0)
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)
    traced = model.train_function
    fitted(model, batches)
    assert model.train_function is traced  # not compiled again
    fitted(model, TRAIN.batches(model, 8))
    assert model.train_function is not traced


@pytest.mark.slow
def test_other_fits_are_not_compiled(tiny_bert, gpu, monkeypatch):
    model = model_of(tiny_bert)
    one_shape = TRAIN.batches(model, 8, shuffle=True, packing=16)
    several = TRAIN.batches(model, 8)
    assert fitted(model, several) == [False] * 2
    assert fitted(model, one_shape, validation_data=several) == [False] * 2
    monkeypatch.setattr(whole_step, "WORTH_COMPILING", 7)
    assert fitted(model, one_shape) == [False] * 2


@pytest.mark.slow
def test_an_attribute_that_was_set_is_kept(tiny_bert, gpu):
    model = model_of(tiny_bert)
    model.jit_compile = True
    model.fit(TRAIN.batches(model, 8, shuffle=True, packing=16), epochs=2, verbose=0)
    assert model.jit_compile is True


def test_a_cpu_compiles_nothing(tiny_bert, monkeypatch):
    monkeypatch.setattr(whole_step, "WORTH_COMPILING", 1)
    model = model_of(tiny_bert)
    assert fitted(model, TRAIN.batches(model, 8, shuffle=True, packing=16)) == [False] * 2
