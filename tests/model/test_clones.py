"""`keras.models.clone_model` copies layers, but not the metadata of a model."""

import re

import keras
import numpy as np
import pytest
from helpers_batches import IDS, LABELS
from helpers_tasks import small_task_model

import finetune_tf as ft
from finetune_tf.errors import ModelError

MESSAGE = "keras.models.clone_model copies only the layers, so labels, config, task and frozen "


def test_say_what_they_lack():
    model = small_task_model("one label")
    ft.train_only(model, ft.select.head())
    clone = keras.models.clone_model(model)
    for use in (
        lambda: clone.compile(),
        lambda: clone.labels,
        lambda: clone.task,
        lambda: clone.config,
        lambda: clone.info,
        lambda: clone.fit(IDS, LABELS),
        lambda: clone.evaluate(IDS, LABELS),
        lambda: clone.save_pretrained("nowhere"),
        lambda: clone.get_config(),
        lambda: ft.stages(clone) and clone.tokenizer,
    ):
        with pytest.raises(ModelError, match=re.escape(MESSAGE)):
            use()


def test_compute_what_the_model_computes():
    model = small_task_model("one label")
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    np.testing.assert_allclose(clone.predict(IDS, verbose=0), model(IDS), rtol=1e-5)


def test_of_a_compiled_model_are_refused_at_once():
    model = small_task_model("one label")
    model.compile(keras.optimizers.SGD(0.0))
    with pytest.raises(ModelError, match=re.escape(MESSAGE)):
        keras.models.clone_model(model)


def test_the_advice_keeps_everything():
    model = small_task_model("one label")
    ft.train_only(model, ft.select.head())
    copy = type(model).from_config(model.get_config())
    copy.set_weights(model.get_weights())
    assert copy.labels == model.labels
    assert [v.trainable for v in copy.variables] == [v.trainable for v in model.variables]
    np.testing.assert_array_equal(copy(IDS), model(IDS))


def test_of_old_classes_and_of_what_learns_on_features(tiny_bert):
    from finetune_tf.compat import TFBertForSequenceClassification

    old = TFBertForSequenceClassification.from_pretrained(tiny_bert, num_labels=3)
    clone = keras.models.clone_model(old)
    with pytest.raises(ModelError, match=re.escape(MESSAGE)):
        clone.compile()
    ft.train_only(old, ft.select.head())
    clone = keras.models.clone_model(ft.cache_features(old))
    with pytest.raises(ModelError, match=re.escape(MESSAGE)):
        clone.compile()
