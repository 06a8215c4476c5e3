"""AdamW against its formula in NumPy."""

import keras
import numpy as np
import pytest
from helpers_models import small_model, token_batch

import finetune_tf as ft
from finetune_tf.training import AdamW

RATE, DECAY, BETA_1, BETA_2, EPSILON = 0.1, 0.3, 0.9, 0.999, 1e-3


class Reference:
    """AdamW in float64, as PyTorch's documentation states it."""

    def __init__(self, values, decays):
        self.values, self.decays = [np.array(v, "float64") for v in values], decays
        self.means = [np.zeros_like(v) for v in self.values]
        self.squares = [np.zeros_like(v) for v in self.values]
        self.steps = 0

    def step(self, gradients, clip_norm=None):
        norm = np.sqrt(sum(np.sum(g**2) for g in gradients))
        if clip_norm is not None and norm > clip_norm:
            gradients = [g * clip_norm / norm for g in gradients]
        self.steps += 1
        for i, gradient in enumerate(gradients):
            self.values[i] *= 1 - RATE * self.decays[i]
            self.means[i] = BETA_1 * self.means[i] + (1 - BETA_1) * gradient
            self.squares[i] = BETA_2 * self.squares[i] + (1 - BETA_2) * gradient**2
            mean = self.means[i] / (1 - BETA_1**self.steps)
            square = self.squares[i] / (1 - BETA_2**self.steps)
            self.values[i] -= RATE * mean / (np.sqrt(square) + EPSILON)


def variables():
    random = np.random.default_rng(0)
    return [
        keras.Variable(random.normal(size=(4, 2)).astype("float32"), name="kernel"),
        keras.Variable(random.normal(size=2).astype("float32"), name="bias"),
    ]


def optimizer(**kwargs):
    return AdamW(RATE, DECAY, BETA_1, BETA_2, EPSILON, **kwargs)


def test_several_steps():
    ours, random = variables(), np.random.default_rng(1)
    reference, adamw = Reference([v.numpy() for v in ours], [DECAY, 0.0]), optimizer()
    for _ in range(5):
        gradients = [random.normal(size=v.shape).astype("float32") for v in ours]
        adamw.apply([keras.ops.convert_to_tensor(g) for g in gradients], ours)
        reference.step(gradients)
    for variable, expected in zip(ours, reference.values, strict=True):
        np.testing.assert_allclose(variable.numpy(), expected, atol=1e-5)


def test_clipping_counts_a_token_that_stands_twice_as_one_row():
    """TensorFlow's gradient of an embedding table has two slices for a repeated token."""
    tf = pytest.importorskip("tensorflow")
    ours, random = variables(), np.random.default_rng(2)
    reference = Reference([v.numpy() for v in ours], [DECAY, 0.0])
    adamw = optimizer(global_clipnorm=1.0)
    for _ in range(3):
        slices = random.normal(size=(3, 2)).astype("float32")
        table = np.zeros((4, 2), "float32")
        np.add.at(table, [1, 1, 3], slices)
        bias = random.normal(size=2).astype("float32")
        rows = tf.IndexedSlices(tf.constant(slices), tf.constant([1, 1, 3]), tf.constant([4, 2]))
        adamw.apply([rows, tf.constant(bias)], ours)
        reference.step([table, bias], clip_norm=1.0)
    for variable, expected in zip(ours, reference.values, strict=True):
        np.testing.assert_allclose(variable.numpy(), expected, atol=1e-5)


def test_rows_without_a_gradient_still_decay():
    tf = pytest.importorskip("tensorflow")
    table = keras.Variable(np.ones((3, 2), "float32"), name="embeddings")
    adamw = optimizer()
    rows = tf.IndexedSlices(tf.ones((1, 2)), tf.constant([0]), tf.constant([3, 2]))
    adamw.apply([rows], [table])
    np.testing.assert_allclose(table.numpy()[1:], 1 - RATE * DECAY, rtol=1e-6)


def test_biases_and_norms_do_not_decay(tiny_bert):
    model = ft.load(tiny_bert, labels=2)
    adamw = optimizer()
    adamw.build(model.trainable_variables)
    decayed = {
        variable.path.rpartition("/")[2]
        for variable, decay in zip(model.trainable_variables, adamw._decays, strict=True)
        if decay
    }
    assert decayed == {"kernel", "embeddings"}
    assert set(adamw._decays) == {DECAY, 0.0}


def test_other_patterns():
    adamw = optimizer(no_decay=[r"^embeddings/"])
    adamw.build(small_model().trainable_variables)
    assert adamw._decays == [0.0, *[DECAY] * 8]
    adamw = optimizer(no_decay=[])
    adamw.build(small_model().trainable_variables)
    assert adamw._decays == [DECAY] * 9


def test_a_reload_keeps_what_does_not_decay():
    adamw = optimizer(no_decay=["kernel"])
    again = keras.optimizers.deserialize(keras.optimizers.serialize(adamw))
    assert type(again) is AdamW
    assert again.get_config() == adamw.get_config()
    again.build(variables())
    assert again._decays == [0.0, DECAY]


@pytest.mark.parametrize("is_trained", [False, True])
def test_weights_that_were_saved_before_compile(is_trained, tmp_path):
    model = small_model()
    model.save_weights(tmp_path / "start.weights.h5")
    start = model.get_weights()
    model.compile(**ft.presets.cross_entropy(learning_rate=1e-4))
    if is_trained:
        model.fit(*token_batch(), batch_size=4, verbose=0)
    model.set_weights([weight + 1 for weight in start])
    with pytest.warns(UserWarning, match="Skipping variable loading for optimizer"):
        model.load_weights(tmp_path / "start.weights.h5")
    for found, expected in zip(model.get_weights(), start, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.filterwarnings("ignore:A learning rate of 0.01")
def test_a_step_lowers_the_loss_of_a_model():
    keras.utils.set_random_seed(0)
    model, (tokens, answers) = small_model(), token_batch()
    model.compile(AdamW(1e-2), run_eagerly=True)
    losses = model.fit(tokens, answers, epochs=5, verbose=0).history["loss"]
    assert losses == sorted(losses, reverse=True)
