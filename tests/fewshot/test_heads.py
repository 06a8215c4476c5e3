"""What `fit_head` and `fit` do with the model: lengths, adapters, cached features."""

import numpy as np
import pytest
from helpers_models import small_model, write_checkpoint

import finetune_tf as ft
from finetune_tf.adapters.attaching import attach
from finetune_tf.adapters.layers import Factors
from finetune_tf.errors import ArgumentError, ModelError
from finetune_tf.messages import quiet

TRAIN = ft.data.from_arrays(
    ["a good film", "great story", "a great and good actor"]
    + ["a bad film", "poor story", "a poor and bad actor"],
    ["good"] * 3 + ["bad"] * 3,
)
LONG, SHORT = "a good film and a very bad story", "a good film and a very"


def test_validation_texts_that_training_knows_are_counted(tmp_path, capsys):
    encoder = write_checkpoint(tmp_path / "encoder", blocks=1)
    ft.fewshot.fit(encoder, TRAIN, TRAIN[:2], steps=1)
    assert "2 of 2 validation examples also occur in the training" in capsys.readouterr().out


def test_predictions_read_as_many_tokens_as_the_recipe(tmp_path):
    """With [CLS] and [SEP], eight tokens are six words."""
    encoder = write_checkpoint(tmp_path / "encoder", blocks=1)
    with quiet():
        model = ft.fewshot.fit(encoder, TRAIN, steps=1, max_length=8)
        assert model.max_length == 8
        assert ft.predict(model, LONG) == ft.predict(model, SHORT)
        again = ft.load(model.save_pretrained(tmp_path / "saved"))
        assert again.max_length == 8


def test_an_adapter_of_the_output_layer_is_refused(tiny_bert):
    """It would be added to the head, which is computed without it."""
    model = small_model(("bad", "good"), tiny_bert)
    # `ft.adapters.add` trains classifiers themselves; folders of PEFT may adapt them.
    attach(model.get_layer("classifier").dense, "scale", Factors.kind, {})
    with pytest.raises(ModelError, match=r"has an adapter \('scale'\).*adapters\.merge"):
        ft.fewshot.fit_head(model, TRAIN)


def test_prototypes_have_no_regularization(tiny_bert):
    model = small_model(("bad", "good"), tiny_bert)
    with pytest.raises(ArgumentError, match="C=3.0 is the regularization of logistic regression"):
        ft.fewshot.fit_head(model, TRAIN, kind="prototypes", C=3.0)


def test_the_upper_part_of_a_model_gets_the_head_of_the_whole_one(tiny_bert):
    model = small_model(("bad", "good"), tiny_bert)
    ft.train_only(model, ft.select.head())
    upper = ft.cache_features(model)
    assert ft.fewshot.fit_head(upper, TRAIN, kind="prototypes") is upper
    found = model.get_layer("classifier").dense.kernel.numpy()
    ft.fewshot.fit_head(model, TRAIN, kind="prototypes")
    np.testing.assert_array_equal(model.get_layer("classifier").dense.kernel, found)
