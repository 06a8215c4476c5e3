"""The event files that `LogToTensorBoard` writes, read back."""

import sys
from collections import defaultdict

import keras
import numpy as np
import pytest
from helpers_models import small_model, token_batch

import finetune_tf as ft
from finetune_tf.callbacks import LogToTensorBoard
from finetune_tf.errors import ArgumentError, DataTypeError, MissingExtraError
from finetune_tf.messages import quiet
from finetune_tf.training import AdamW

TOKENS, ANSWERS = token_batch(16)
pytestmark = pytest.mark.filterwarnings("ignore:A learning rate of 0.01")


@pytest.fixture(autouse=True)
def needs_tensorboard(request):
    if "without" not in request.node.name:
        pytest.importorskip("tensorboard")


def written(folder):
    """The values in event files: tag -> {step: value}."""
    import tensorflow as tf
    from tensorflow.core.util import event_pb2

    found = defaultdict(dict)
    for path in sorted(folder.glob("events.*")):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = event_pb2.Event.FromString(record)
            for value in event.summary.value:
                array = tf.make_ndarray(value.tensor)
                found[value.tag][event.step] = array.item() if array.ndim == 0 else array[0]
    return found


class Gradients(keras.callbacks.Callback):
    """Computes the norms of the gradients of each step by itself, before the step."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.norms = []

    def on_train_batch_begin(self, batch, logs=None):
        import tensorflow as tf

        x, y = TOKENS[batch * 4 :][:4], ANSWERS[batch * 4 :][:4]
        with tf.GradientTape() as tape:
            loss = self.model.compute_loss(x, y, self.model(x, training=True))
        variables = [v.value for v in self.model.trainable_variables]
        squares = defaultdict(float)
        for variable, gradient in zip(
            self.model.trainable_variables, tape.gradient(loss, variables), strict=True
        ):
            dense = tf.convert_to_tensor(gradient).numpy()
            squares[variable.path.split("/")[0]] += float(np.square(dense).sum())
        self.norms.append({name: value**0.5 for name, value in squares.items()})


def fit(folder, optimizer=None, *callbacks, epochs=2, every=1, **options):
    keras.utils.set_random_seed(0)
    model = small_model()
    log = LogToTensorBoard(folder, every=every, **options)
    with quiet():
        model.compile(optimizer or AdamW(1e-2, global_clipnorm=0.01))
        history = model.fit(
            TOKENS,
            ANSWERS,
            batch_size=4,
            epochs=epochs,
            shuffle=False,
            validation_data=(TOKENS, ANSWERS),
            callbacks=[log, *callbacks],
            verbose=0,
        )
    return model, history.history, written(folder)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Converting sparse IndexedSlices")
@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: AdamW(1e-2, global_clipnorm=0.01),
        lambda: keras.optimizers.LossScaleOptimizer(
            keras.optimizers.SGD(1e-2), initial_scale=1024.0
        ),
    ],
)
def test_norms_are_those_of_the_gradients_before_clipping(tmp_path, optimizer):
    own = Gradients()
    _, _, found = fit(tmp_path, optimizer(), own, epochs=1)
    for step, norms in enumerate(own.norms, 1):
        for name, norm in norms.items():
            assert found[f"gradient_norm/{name}"][step] == pytest.approx(norm, rel=1e-4, abs=1e-7)
        whole = sum(norm**2 for norm in norms.values()) ** 0.5
        assert found["gradient_norm/all"][step] == pytest.approx(whole, rel=1e-4)


@pytest.mark.slow
def test_losses_metrics_and_rates(tmp_path):
    preset = ft.presets.cross_entropy(learning_rate=1e-2)
    _, history, found = fit(tmp_path, preset["optimizer"])
    assert sorted(found["step/loss"]) == list(range(1, 9))
    assert found["step/loss"][8] == pytest.approx(history["loss"][1])
    for name, values in history.items():
        assert found[f"epoch/{name}"] == pytest.approx(dict(enumerate(values, 1)))
    rates = found["step/learning_rate"]
    assert rates[1] > rates[8] and max(rates.values()) <= 1e-2 + 1e-8


def test_rates_of_stages(tmp_path):
    class WithFactors(keras.optimizers.SGD):
        def factor_of(self, variable):
            return None if "classifier" in variable.path else 0.5

        def get_config(self):
            return super().get_config() | {"rates": [["block|norm|embeddings", 0.5]]}

    _, _, found = fit(tmp_path, WithFactors(0.1), epochs=1, gradient_norms=False)
    assert found["learning_rate/block_0"][4] == pytest.approx(0.05)
    assert found["learning_rate/classifier"][4] == pytest.approx(0.1)


@pytest.mark.slow
def test_fewer_entries(tmp_path):
    _, _, found = fit(tmp_path, every=3, gradient_norms=False)
    assert sorted(found["step/loss"]) == [3, 4, 7, 8]  # always the last one of an epoch
    assert not any(name.startswith("gradient_norm") for name in found)


@pytest.mark.slow
def test_the_fit_is_the_same_with_norms(tmp_path):
    model, history, _ = fit(tmp_path / "with")
    other, expected, _ = fit(tmp_path / "without", gradient_norms=False)
    for name in expected:
        np.testing.assert_allclose(history[name], expected[name], rtol=1e-6)
    with quiet():  # later fits compute no norms
        model.fit(TOKENS, ANSWERS, batch_size=4, shuffle=False, verbose=0)
        other.fit(TOKENS, ANSWERS, batch_size=4, shuffle=False, verbose=0)
    for one, two in zip(model.weights, other.weights, strict=True):
        # A step changes weights by 1e-2. On some processors, the graph with norms is rounded
        # otherwise.
        np.testing.assert_allclose(one.numpy(), two.numpy(), rtol=0, atol=1e-6)


@pytest.mark.slow
def test_norms_of_stages_that_are_unfrozen(tmp_path):
    class Unfreeze(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.model.get_layer("block_0").trainable = epoch == 1

    _, _, found = fit(tmp_path, None, Unfreeze())
    norms = found["gradient_norm/block_0"]
    assert all(norms[step] == 0 for step in (1, 2, 3, 4))
    assert all(norms[step] > 0 for step in (5, 6, 7, 8))


@pytest.mark.slow
def test_predictions_for_samples(tmp_path, tiny_bert):
    examples = ft.data.from_arrays(["a good film", "bad | worse"] * 4, ["yes", "no"] * 4)
    with quiet():
        model = ft.load(tiny_bert, labels=examples.labels)
        ft.train_only(model, ft.select.head())
        for fitted in (model, ft.cache_features(model)):
            fitted.compile()
            folder = tmp_path / type(fitted).__name__
            log = LogToTensorBoard(folder, samples=examples.take(2))
            fitted.fit(examples.batches(fitted, 4), callbacks=[log], epochs=2, verbose=0)
            table = written(folder)["predictions"]
            assert sorted(table) == [1, 2]
            lines = table[2].decode().splitlines()
            assert lines[0] == "| text | label | prediction |"
            assert lines[2].startswith("| a good film | yes | ") and lines[2].endswith(") |")
            assert lines[3].startswith("| bad \\| worse | no | ")


def test_a_model_of_keras_has_no_norms(tmp_path, capsys):
    network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    network.compile("sgd", "mse")
    log = LogToTensorBoard(tmp_path, every=1)
    network.fit(np.ones((8, 3)), np.ones(8), batch_size=4, callbacks=[log], verbose=0)
    assert "so they are left out here." in capsys.readouterr().out
    assert sorted(written(tmp_path)["step/loss"]) == [1, 2]


def test_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    message = r"LogToTensorBoard needs tensorboard, .* pip install 'finetune-tf\[tensorboard\]'"
    with pytest.raises(MissingExtraError, match=message):
        LogToTensorBoard(tmp_path)


def test_wrong_arguments(tmp_path):
    with pytest.raises(ArgumentError, match="every must be an integer >= 1, found 0"):
        LogToTensorBoard(tmp_path, every=0)
    with pytest.raises(DataTypeError, match="samples must be Examples, such as test.take"):
        LogToTensorBoard(tmp_path, samples=["a film"])
