"""The parts of a model under their names in transformers 4: attributes, freezing and calls."""

from pathlib import Path

import keras
import numpy as np
import pytest

from finetune_tf import compat
from finetune_tf.errors import ModelError
from finetune_tf.messages import quiet

FOLDER, NAME = Path(__file__).resolve().parents[1] / "references", "text-classification"
IDS = np.array([[2, 6, 7, 3], [2, 8, 3, 0]], "int32")
MASK = np.array([[1, 1, 1, 1], [1, 1, 1, 0]], "int32")


def test_the_encoder_alone(classifier, tiny_bert):
    with quiet():
        bare = compat.TFBertModel.from_pretrained(tiny_bert)
    expected = bare(IDS, MASK).last_hidden_state
    np.testing.assert_array_equal(classifier.bert(IDS, MASK)[0], expected)
    np.testing.assert_allclose(
        classifier.bert(IDS, MASK).pooler_output, bare(IDS, MASK).pooler_output, atol=1e-6
    )
    assert classifier.base_model.embeddings is classifier.get_layer("embeddings")


def test_attributes_of_the_parts(classifier):
    encoder, head = classifier.layers[0], classifier.classifier
    assert encoder.name == "bert" and encoder.config.hidden_size == 24
    assert len(encoder.weights) == len(classifier.weights) - len(head.weights)
    assert encoder.count_params() == classifier.count_params() - head.count_params()
    assert len(encoder(IDS, output_hidden_states=True).hidden_states) == 3
    assert encoder(IDS, output_attentions=True).attentions[0].shape == (2, 3, 4, 4)


def test_model_layers(classifier, tiny_bert):
    assert [layer.name for layer in classifier.layers][:1] == ["bert"]
    assert classifier.layers[-1] is classifier.classifier
    assert len(classifier.get_config()["layers"]) > len(classifier.layers)  # Keras sees them all
    assert classifier.get_layer("embeddings") is classifier.bert.embeddings
    with quiet():
        (encoder,) = compat.TFBertModel.from_pretrained(tiny_bert).layers
    assert len(encoder.encoder.layer) == 2


@pytest.mark.slow
def test_an_encoder_in_a_custom_model(fresh):
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.bert, self.dense = fresh.bert, keras.layers.Dense(2)

        def call(self, ids, training=None):
            return self.dense(self.bert(ids, training=training)[1])

    own = Own()
    own.compile(keras.optimizers.SGD(0.1), "mse")
    before = np.array(fresh.bert.embeddings.word.embeddings)
    own.fit(IDS, np.eye(2), verbose=0)
    assert np.abs(fresh.bert.embeddings.word.embeddings - before).max() > 0
    assert len(own.trainable_variables) == len(fresh.bert.trainable_variables) + 2


@pytest.mark.parametrize("name", ["__init__", "call", "compute_loss"])
def test_overrides_that_raise_an_error(name):
    with pytest.raises(ModelError, match=f"^Own cannot override {name}: "):
        type("Own", (compat.TFBertForSequenceClassification,), {name: lambda self: None})


@pytest.mark.slow
def test_the_loss_of_a_subclass(tiny_bert):
    class Own(compat.TFBertForSequenceClassification):
        def hf_compute_loss(self, labels, logits):
            return 1000 * super().hf_compute_loss(labels, logits)

    with quiet():
        model = Own.from_pretrained(tiny_bert)
        model.compile(keras.optimizers.SGD(0.0))
    labels = np.array([0, 1])
    loss = model.evaluate({"input_ids": IDS, "labels": labels}, verbose=0)
    assert loss == pytest.approx(float(np.mean(model(IDS, labels=labels).loss)), rel=1e-5)
    assert loss > 100


def test_unfreezing_reaches_layers_that_were_frozen_individually(fresh):
    everything = len(fresh.trainable_weights)
    for layer in fresh.bert.encoder.layer:
        layer.trainable = False
    fresh.bert.trainable = True
    assert len(fresh.trainable_weights) == everything
    fresh.bert.encoder.layer[0].trainable = False
    fresh.bert.encoder.layer[0].attention.trainable = True
    fresh.bert.trainable = False
    assert len(fresh.trainable_weights) == 2
    fresh.trainable = True
    assert len(fresh.trainable_weights) == everything


@pytest.mark.parametrize(
    ("family", "outside"),
    [("roberta", 4), ("xlm-roberta", 4), ("electra", 4), ("distilbert", 4), ("bert", 2)],
)
def test_layers_of_head_and_encoder(family, outside):
    with quiet():
        model = compat.TFAutoModelForSequenceClassification.from_pretrained(FOLDER / family / NAME)
    model.layers[0].trainable = False
    assert len(model.trainable_weights) == outside
    assert len(model.layers) == (3 if family == "distilbert" else 2)
    assert len(model.classifier.weights) == (2 if family in ("bert", "distilbert") else 4)
    assert model.get_layer(model.layers[0].name).layers == model.layers[0].layers


def test_electra_has_no_pooler():
    with quiet():
        model = compat.TFElectraModel.from_pretrained(FOLDER / "electra" / NAME)
    assert model(IDS).pooler_output is None
    assert isinstance(model(IDS, output_hidden_states=True)[1], tuple)


@pytest.mark.parametrize("family", ["roberta", "xlm-roberta", "camembert", "mpnet"])
def test_poolers_of_models_without_a_head(family, tmp_path):
    with quiet():
        model = compat.TFAutoModel.from_pretrained(FOLDER / family / NAME)
        with np.load(FOLDER / family / NAME / "expected.npz") as stored:
            ids = stored["input_ids"]
        pooled = model(ids)[1]
        assert pooled is not None
        again = type(model).from_pretrained(model.save_pretrained(tmp_path / family))
    np.testing.assert_array_equal(again(ids).pooler_output, pooled)


def test_the_encoder_by_its_layer_name(tiny_bert):
    ids = keras.Input((4,), dtype="int32")
    with quiet():
        bert = compat.TFBertModel.from_pretrained(tiny_bert)
    model = keras.Model(ids, keras.layers.Dense(2)(bert(ids)[1]))
    assert any(layer.name.startswith("tf_bert_model") for layer in model.layers)


@pytest.mark.slow
def test_two_encoders_in_one_model_that_is_saved_and_loaded(tiny_bert, tmp_path):
    with quiet():
        towers = [compat.TFBertModel.from_pretrained(tiny_bert) for _ in range(2)]
        towers.append(compat.TFBertForSequenceClassification.from_pretrained(tiny_bert))
    inputs = [keras.Input((4,), dtype="int32") for _ in towers]
    pooled = [tower(x)[1] for tower, x in zip(towers[:2], inputs[:2], strict=True)]
    pooled.append(towers[2].bert(inputs[2])[1])
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.concatenate(pooled)))
    model.save(tmp_path / "towers.keras")
    again = keras.models.load_model(tmp_path / "towers.keras")
    np.testing.assert_array_equal(again([IDS] * 3), model([IDS] * 3))
