"""Statistics of batch normalisation: fixed by default, trained on request, measured anew."""

import keras
import numpy as np
import pytest

import finetune_tf as ft
from finetune_tf.errors import DataError, ModelError
from finetune_tf.messages import quiet

CONFIG = {"model_type": "resnet", "embedding_size": 4, "hidden_sizes": [8, 6], "depths": [2, 1]}
CONFIG |= {"layer_type": "basic"}
RANDOM = np.random.default_rng(0)


def resnet(**options):
    with quiet():
        keras.utils.set_random_seed(0)
        return ft.load(CONFIG, "image-classification", labels=["a", "b"], image_size=33, **options)


def images(rows=8):
    """Images whose means differ, as those of photographs do."""
    means = RANDOM.integers(0, 200, (rows, 1, 1, 3))
    return (means + RANDOM.integers(0, 56, (rows, 33, 33, 3))).astype("uint8")


def batches(model, rows=8, size=4):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((images(rows), np.arange(rows) % 2)).batch(size)


def statistics(model):
    return {v.path: v.numpy() for v in model.weights if v.path.endswith(("/mean", "/variance"))}


def moved(before, model):
    """The names of the stages whose statistics have changed."""
    now = statistics(model)
    return {path.split("/")[0] for path in now if not np.array_equal(now[path], before[path])}


def fit(model):
    with quiet():
        model.fit(batches(model), verbose=0)


@pytest.fixture(scope="module")
def folded(tmp_path_factory):
    """Folder of a checkpoint whose statistics are 0 and 1, as converters write them."""
    with quiet():
        return resnet().save_pretrained(tmp_path_factory.mktemp("folded") / "resnet")


@pytest.mark.slow
def test_statistics_stay_by_default():
    model = resnet()
    before = statistics(model)
    fit(model)
    assert len(before) == 2 * 9 and moved(before, model) == set()


@pytest.mark.slow
def test_statistics_move_on_request_and_stop_again(capsys):
    model = resnet()
    fit(model)  # a step is traced already
    before = statistics(model)
    ft.train_batch_statistics(model)
    assert "The statistics of 9 of 9 batch normalisations are trained." in capsys.readouterr().out
    fit(model)
    assert moved(before, model) == {"embeddings", "block_0", "block_1"}
    before = statistics(model)
    ft.train_batch_statistics(model, on=False)
    fit(model)
    assert moved(before, model) == set()


@pytest.mark.slow
def test_statistics_of_selected_stages():
    model = resnet()
    before = statistics(model)
    with quiet():
        ft.train_batch_statistics(model, ft.select.blocks(1))
    fit(model)
    assert moved(before, model) == {"block_1"}


@pytest.mark.slow
def test_statistics_of_frozen_stages_stay():
    model = resnet()
    with quiet():
        ft.train_batch_statistics(model)
        fit(model)
        ft.freeze(model, ft.select.embeddings() | ft.select.bottom(1))
    before = statistics(model)
    fit(model)
    assert moved(before, model) == {"block_1"}
    with quiet():
        ft.train_only(model, ft.select.everything())
    fit(model)
    assert moved(before, model) == {"embeddings", "block_0", "block_1"}


@pytest.mark.slow
def test_a_fit_that_is_running_follows():
    model = resnet()
    before = statistics(model)

    class Switch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                assert moved(before, model) == set()
                ft.train_batch_statistics(model)

    with quiet():
        model.fit(batches(model), epochs=2, callbacks=[Switch()], verbose=0)
    assert moved(before, model) == {"embeddings", "block_0", "block_1"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_keras_files_keep_it(tmp_path):
    model = resnet()
    with quiet():
        ft.train_batch_statistics(model, ft.select.embeddings() | ft.select.blocks(1))
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
    before = statistics(again)
    fit(again)
    assert moved(before, again) == {"embeddings", "block_1"}


@pytest.mark.slow
def test_bfloat16_learns_float32_statistics():
    model = resnet(dtype="mixed_bfloat16")
    with quiet():
        ft.train_batch_statistics(model)
    before = statistics(model)
    fit(model)
    assert moved(before, model) == {"embeddings", "block_0", "block_1"}
    assert {v.dtype for v in statistics(model).values()} == {np.dtype("float32")}
    assert all(np.isfinite(v).all() for v in statistics(model).values())


def test_a_folded_checkpoint_needs_measured_statistics(folded, capsys):
    with quiet():
        model = ft.load(folded)
    with pytest.raises(ModelError, match="a mean of 0 and a variance of 1.*measure_batch_stat"):
        ft.train_batch_statistics(model)
    data = batches(model, rows=64, size=16)
    before = model.predict(data, verbose=0)
    ft.measure_batch_statistics(model, data)
    report = capsys.readouterr().out
    assert "The statistics of 9 batch normalisations were measured on 64 images." in report
    np.testing.assert_allclose(model.predict(data, verbose=0), before, rtol=0, atol=1e-5)
    with quiet():
        ft.train_batch_statistics(model)


def test_measured_statistics_are_those_of_all_images():
    model = resnet()
    pixels = images(12)
    stem = model.get_layer("embeddings").layer
    convolved = stem.convolution(
        np.pad(model.get_layer("pixels")(pixels), [(0, 0), (3, 3), (3, 3), (0, 0)])
    )
    with quiet():
        ft.measure_batch_statistics(model, [pixels[:7], pixels[7:]])
    values = np.asarray(convolved, "float64").reshape(-1, 4)
    np.testing.assert_allclose(stem.norm.mean, values.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(stem.norm.variance, values.var(0, ddof=1), rtol=1e-5)


def test_training_computes_nearly_the_same_after_measuring(folded):
    with quiet():
        model = ft.load(folded)
    data = images(64)
    expected = np.asarray(model(data))
    spread = expected.std()

    def error():
        with quiet():
            learning = keras.saving.deserialize_keras_object(
                keras.saving.serialize_keras_object(model)
            )
        learning.set_weights(model.get_weights())
        for layer in learning._flatten_layers():
            if hasattr(layer, "learns_statistics"):
                layer.learns_statistics = True
        return np.abs(np.asarray(learning(data, training=True)) - expected).max() / spread

    assert error() > 1
    with quiet():
        ft.measure_batch_statistics(model, [data])
    # The stored variance is the unbiased one, here of 9 values in each image.
    assert error() < 5 / (9 * 64)


def test_models_without_batch_normalisation(tiny_bert):
    with quiet():
        model = ft.load(tiny_bert, labels=2)
    for call in (
        lambda: ft.train_batch_statistics(model),
        lambda: ft.measure_batch_statistics(model, []),
    ):
        with pytest.raises(ModelError, match="no batch normalisation of finetune_tf"):
            call()


def test_what_selects_nothing():
    model = resnet()
    with pytest.raises(ModelError, match="selects no batch normalisation"):
        ft.train_batch_statistics(model, ft.select.head())
    with pytest.raises(DataError, match="no batches of images"):
        ft.measure_batch_statistics(model, [])
