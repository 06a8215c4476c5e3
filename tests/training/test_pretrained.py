"""Pretrained variables are recorded individually and determine the automatic rate."""

import keras
import numpy as np
import pytest
from helpers_models import write_checkpoint

import finetune_tf as ft
from finetune_tf import select
from finetune_tf.training.pretrained import learns_pretrained

CLASSIFIER = {"classifier/dense/kernel", "classifier/dense/bias"}


def load(folder, **options):
    return ft.load(folder, **{"labels": ["bad", "good"], "pooling": "mean", **options})


def paths(model):
    return {variable.path for variable in model.weights}


def automatic_rate(model):
    schedule = ft.presets.cross_entropy()["optimizer"]._learning_rate
    schedule.resolve(model)
    return schedule.rate


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "base", blocks=1)


@pytest.fixture
def model(base):
    return load(base)


def with_adapter(model):
    """Inserts an adapter into a pretrained layer and trains only the adapter and the head."""
    query = model.get_layer("block_0").attention.query
    query._tracker.unlock()
    query.adapter = keras.layers.Dense(2, name="adapter")
    query.adapter.build((None, None, 24))
    query._tracker.lock()
    ft.train_only(model, select.matching("adapter") | select.head())
    return model


def test_the_load_knows_what_it_filled(base, model):
    assert set(model.info.pretrained) == paths(model) - CLASSIFIER
    pooled = load(base, pooling="pooler")
    assert "pooler/dense/kernel" in pooled.info.pretrained


def test_from_scratch_nothing_is_pretrained_and_all_is_treated_with_care(base, model):
    scratch = load(dict(model.config))
    assert scratch.info.pretrained == ()
    assert automatic_rate(scratch) == pytest.approx(5e-5)
    scratch.compile(keras.optimizers.Adam(1e-3))  # no pretrained weights to ruin, no warning
    ft.train_only(scratch, select.head())
    assert automatic_rate(scratch) == pytest.approx(2e-3)


def test_an_adapter_in_a_pretrained_block_is_new(model):
    assert learns_pretrained(model) and automatic_rate(model) == pytest.approx(5e-5)
    with_adapter(model)
    learning = {variable.path for variable in model.trainable_variables}
    assert learning == CLASSIFIER | {"adapter/kernel", "adapter/bias"}
    assert not learns_pretrained(model)
    assert automatic_rate(model) == pytest.approx(2e-3)
    model.compile(keras.optimizers.Adam(1e-2))  # a warning about this rate would be an error
    ft.train_only(model, select.matching("adapter|block_0/feed_forward/output/bias"))
    assert automatic_rate(model) == pytest.approx(5e-5)


def test_layers_on_top_of_a_model_are_new(model):
    ids = keras.Input((None,), dtype="int32")
    hidden = keras.layers.Dense(4, name="middle")(model({"input_ids": ids}))
    hidden = keras.layers.LayerNormalization(name="normed")(hidden)
    outer = keras.Model(ids, keras.layers.Dense(2, name="top")(hidden))
    assert learns_pretrained(outer)
    ft.train_only(outer, select.matching("^(middle|normed|top)/"))
    assert not learns_pretrained(outer)


def test_it_survives_a_keras_file(model, tmp_path):
    ft.train_only(model, select.head())
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.info == model.info
    assert again.info.pretrained == model.info.pretrained
    assert automatic_rate(with_adapter(again)) == pytest.approx(2e-3)


def test_a_file_of_an_older_version_says_nothing(model):
    config = model.get_config()
    assert config["info"].pop("pretrained") == list(model.info.pretrained)
    model = ft.FineTuneModel.from_config(config)
    assert model.info.pretrained is None
    assert automatic_rate(model) == pytest.approx(5e-5)
    ft.train_only(model, select.head())
    assert automatic_rate(model) == pytest.approx(2e-3)


def test_a_saved_checkpoint_knows_whether_its_head_was_trained(model, tmp_path):
    model.save_pretrained(tmp_path / "untrained")
    assert CLASSIFIER.isdisjoint(ft.load(tmp_path / "untrained").info.pretrained)
    kernel = next(v for v in model.weights if v.path == "classifier/dense/kernel")
    kernel.assign(kernel + 1.0)
    model.save_pretrained(tmp_path / "trained")
    again = ft.load(tmp_path / "trained")
    assert set(again.info.pretrained) == paths(again)
    ft.train_only(again, select.head())  # a high rate suits a head, trained or not
    assert automatic_rate(again) == pytest.approx(2e-3)
    np.testing.assert_array_equal(again.get_layer("classifier").dense.kernel, kernel)
