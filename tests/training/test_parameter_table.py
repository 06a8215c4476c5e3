"""Parameters by stage: counts, dtypes and factors of the learning rate."""

import json

import keras
import pytest
from helpers_models import small_model

import finetune_tf as ft
from finetune_tf.errors import ModelError
from finetune_tf.messages import quiet


def test_the_counts_are_those_of_the_model(tiny_bert):
    with quiet():
        model = ft.load(tiny_bert, labels=["a", "b"], dtype="mixed_bfloat16")
        ft.train_only(model, ft.select.head() | ft.select.blocks(-1))
    table = ft.parameter_table(model)
    assert (table.trainable, table.parameters) == ft.count_parameters(model)
    assert [row.stage for row in table.rows] == [stage.name for stage in model.stages]
    assert [row.stage for row in table.rows if row.trainable] == ["block_1", "classifier"]
    assert [row.dtype for row in table.rows] == ["mixed_bfloat16"] * 4 + ["float32"]
    content = json.loads(json.dumps(table.to_dict()))
    assert content["stages"][1]["parameters"] == table.rows[1].parameters > 0


def test_the_text_and_the_table_of_a_notebook():
    model = small_model()
    table = ft.parameter_table(model)
    lines = str(table).splitlines()
    assert lines[0] == "stage       role        parameters  trainable  dtype"
    assert lines[1] == "embeddings  embeddings         176        176  float32"
    assert lines[-1] == "total                          354        354"
    assert repr(table) == str(table)
    html = table._repr_html_()
    assert html.startswith("<table><tr><th>stage</th>") and "<td" in html and "354" in html


def test_factors_of_the_learning_rate():
    class WithFactors(keras.optimizers.SGD):
        def factor_of(self, variable):
            return None if "classifier" in variable.path else 0.5

        def get_config(self):
            return super().get_config() | {"rates": [["block|norm|embeddings", 0.5]]}

    model = small_model()
    with quiet():
        model.compile(WithFactors(0.1))
    table = ft.parameter_table(model)
    assert [row.rate_factor for row in table.rows] == [0.5] * 4 + [1.0]
    assert str(table).splitlines()[1].endswith("float32          0.5")


def test_the_upper_part_shows_the_whole(tiny_bert):
    with quiet():
        model = ft.load(tiny_bert, labels=["a", "b"])
        ft.train_only(model, ft.select.head())
        learner = ft.cache_features(model)
    assert ft.parameter_table(learner).rows == ft.parameter_table(model).rows


def test_a_model_of_keras_with_statistics():
    inputs = keras.Input((4,))
    hidden = keras.layers.BatchNormalization()(keras.layers.Dense(3)(inputs))
    network = keras.Model(inputs, keras.layers.Dense(1, name="top")(hidden))
    table = ft.parameter_table(network)
    assert table.parameters == network.count_params()
    assert table.trainable == ft.count_parameters(network)[0] == table.parameters - 6


def test_what_is_no_model():
    with pytest.raises(ModelError, match="Expected a Keras model"):
        ft.parameter_table("bert")
    with pytest.raises(ModelError, match="has no weights yet"):
        ft.parameter_table(keras.Sequential([keras.layers.Dense(2)]))
