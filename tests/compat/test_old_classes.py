"""What transformers 4's tests asked of its TensorFlow models, where it still makes sense."""

import pickle
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import finetune_tf as ft
from finetune_tf import compat
from finetune_tf.checkpoints import FAMILIES
from finetune_tf.errors import DataError, ModelError
from finetune_tf.messages import quiet
from finetune_tf.tasks import TASKS

FOLDER, NAME = Path(__file__).resolve().parents[1] / "references", "text-classification"
IDS = np.array([[2, 6, 7, 3], [2, 8, 3, 0]], "int32")
MASK = np.array([[1, 1, 1, 1], [1, 1, 1, 0]], "int32")
TYPES = np.zeros_like(IDS)


@pytest.fixture(scope="module")
def classifier(tiny_bert):
    with quiet():
        return compat.TFBertForSequenceClassification.from_pretrained(tiny_bert, num_labels=3)


@pytest.fixture
def fresh(tiny_bert):
    """A model that a test may change."""
    with quiet():
        return compat.TFBertForSequenceClassification.from_pretrained(tiny_bert)


def test_there_is_a_class_for_every_family_and_task():
    names = {
        f"TF{f.class_prefix}{t.class_suffix}" for f in FAMILIES.values() for t in TASKS.values()
    }
    assert all(issubclass(getattr(compat, name), ft.FineTuneModel) for name in names)
    assert ft.TFXLMRobertaForTokenClassification is compat.TFXLMRobertaForTokenClassification
    for name in ("Model", "ModelForSequenceClassification", "ModelForMaskedLM"):
        assert getattr(compat, f"TFAuto{name}").__name__ == f"TFAuto{name}"


@pytest.mark.parametrize("family", FAMILIES)
def test_forward_shapes_hidden_states_and_attentions(family):
    with quiet():
        model = compat.TFAutoModel.from_pretrained(FOLDER / family / NAME)
    assert type(model).__name__ == f"TF{FAMILIES[family].class_prefix}Model"
    with np.load(FOLDER / family / NAME / "expected.npz") as stored:
        ids, mask = stored["input_ids"], stored["attention_mask"]
    output = model(ids, attention_mask=mask, output_hidden_states=True, output_attentions=True)

    rows, length = ids.shape
    states, attentions = output.hidden_states, output.attentions
    assert output.last_hidden_state.shape == states[0].shape == (rows, length, states[0].shape[-1])
    assert len(states) == len(attentions) + 1
    np.testing.assert_array_equal(states[-1], output.last_hidden_state)
    for weights in attentions:
        real = np.asarray(weights)[
            mask.astype(bool).nonzero()[0], :, mask.astype(bool).nonzero()[1]
        ]
        assert weights.shape[0] == rows
        assert weights.shape[2:] == (length, length)
        if not model.config.get("talking_head"):
            np.testing.assert_allclose(real.sum(-1), 1.0, rtol=1e-5)


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_states_of_every_token_though_the_head_reads_the_first(family):
    folder = FOLDER / family / NAME
    wanted = {"output_hidden_states": True, "output_attentions": True}
    with quiet():
        bare = compat.TFAutoModel.from_pretrained(folder)(IDS, attention_mask=MASK, **wanted)
        model = compat.TFAutoModelForSequenceClassification.from_pretrained(folder)
    output = model(IDS, attention_mask=MASK, **wanted)
    for name in wanted:
        name = name.removeprefix("output_")
        for found, expected in zip(output[name], bare[name], strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_array_equal(output.logits, model(IDS, attention_mask=MASK).logits)


@pytest.mark.slow
def test_weights_of_transformers_4_trained_on_open_in_pytorch(tmp_path):
    torch = pytest.importorskip("torch")
    from transformers import BertForSequenceClassification

    folder = FOLDER.parent / "fixtures" / "tf4" / "bert" / NAME
    with np.load(folder / "expected.npz") as stored:
        inputs = {n: stored[n] for n in ("input_ids", "attention_mask", "token_type_ids")}
        recorded = stored["logits"]
    with quiet():
        model = compat.TFBertForSequenceClassification.from_pretrained(folder)
        np.testing.assert_allclose(model(inputs).logits, recorded, rtol=0, atol=1e-5)
        model.compile(keras.optimizers.Adam(1e-4))
        model.fit({**inputs, "labels": np.arange(len(recorded)) % 3}, epochs=30, verbose=0)
        model.save_pretrained(tmp_path)
    theirs = BertForSequenceClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        expected = theirs(**{n: torch.tensor(v).long() for n, v in inputs.items()}).logits
    assert np.abs(np.asarray(expected) - recorded).max() > 1e-3
    np.testing.assert_allclose(model(inputs).logits, expected, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_states_and_attentions_are_those_of_pytorch(family):
    torch = pytest.importorskip("torch")
    from transformers import AutoModel

    theirs = AutoModel.from_pretrained(FOLDER / family / NAME, attn_implementation="eager").eval()
    with np.load(FOLDER / family / NAME / "expected.npz") as stored:
        inputs = {
            n: stored[n] for n in ("input_ids", "attention_mask", "token_type_ids") if n in stored
        }
    wanted = {"output_hidden_states": True, "output_attentions": True}
    with torch.no_grad():
        expected = theirs(**{n: torch.tensor(v).long() for n, v in inputs.items()}, **wanted)
    with quiet():
        found = compat.TFAutoModel.from_pretrained(FOLDER / family / NAME)(**inputs, **wanted)

    real = inputs["attention_mask"].astype(bool)
    assert len(found.hidden_states) == len(expected.hidden_states)
    for mine, other in zip(found.hidden_states, expected.hidden_states, strict=True):
        np.testing.assert_allclose(np.asarray(mine)[real], other.numpy()[real], rtol=0, atol=1e-5)
    rows, places = real.nonzero()
    for mine, other in zip(found.attentions, expected.attentions, strict=True):
        mine, other = np.asarray(mine), other.numpy()
        np.testing.assert_allclose(mine[rows, :, places], other[rows, :, places], rtol=0, atol=1e-5)
    if family in ("bert", "albert"):  # others have no pooler in a classifier's file
        np.testing.assert_allclose(found.pooler_output, expected.pooler_output, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["roberta", "mpnet"])
def test_poolers_of_bare_models_are_those_of_pytorch(family, tmp_path):
    torch = pytest.importorskip("torch")
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(FOLDER / family / NAME)
    AutoModel.from_config(config).save_pretrained(tmp_path / "theirs")
    with quiet():
        model = compat.TFAutoModel.from_pretrained(tmp_path / "theirs")
        model.save_pretrained(tmp_path / "ours")
    for folder in ("theirs", "ours"):
        theirs, told = AutoModel.from_pretrained(tmp_path / folder, output_loading_info=True)
        assert not told["missing_keys"] and not told["unexpected_keys"]
        with torch.no_grad():
            expected = theirs.eval()(torch.tensor(IDS).long(), torch.tensor(MASK).long())
        found = model(IDS, attention_mask=MASK).pooler_output
        np.testing.assert_allclose(found, expected.pooler_output, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((IDS,), {"attention_mask": MASK}),
        ((IDS, MASK), {}),
        ((IDS, MASK, TYPES), {}),
        (([IDS, MASK],), {}),
        (({"input_ids": IDS, "attention_mask": MASK},), {}),
        (({"input_ids": tf.constant(IDS), "attention_mask": tf.constant(MASK)},), {}),
        ((), {"input_ids": IDS, "attention_mask": MASK, "token_type_ids": TYPES}),
        (({"input_ids": IDS, "attention_mask": MASK, "labels": np.array([0, 1])},), {}),
        ((IDS,), {"attention_mask": MASK, "training": False, "return_dict": True}),
    ],
)
def test_every_way_of_calling_gives_the_same(classifier, args, kwargs):
    output = classifier(*args, **kwargs)
    expected = classifier.call({"input_ids": IDS, "attention_mask": MASK})
    np.testing.assert_array_equal(output.logits, expected)
    np.testing.assert_array_equal(output["logits"], expected)
    np.testing.assert_array_equal(output[-1], expected)
    np.testing.assert_array_equal(output.to_tuple()[-1], expected)


def test_what_was_not_computed(classifier):
    output = classifier(IDS)
    assert list(output) == ["logits"]
    assert output.loss is output.hidden_states is output.attentions is None
    with pytest.raises(AttributeError, match="output has no 'logit'; it has logits"):
        _ = output.logit


def test_losses_have_the_shapes_they_had(tiny_bert, classifier):
    labels = np.array([2, 0])
    expected = keras.losses.sparse_categorical_crossentropy(
        labels, classifier(IDS, MASK).logits, from_logits=True
    )
    np.testing.assert_allclose(classifier(IDS, MASK, labels=labels).loss, expected, rtol=1e-6)

    with quiet():
        tagger = compat.TFBertForTokenClassification.from_pretrained(tiny_bert, num_labels=2)
        reader = compat.TFBertForQuestionAnswering.from_pretrained(tiny_bert)
        guesser = compat.TFBertForMaskedLM.from_pretrained(tiny_bert)
        grader = compat.TFBertForSequenceClassification.from_pretrained(tiny_bert, num_labels=1)
    tags = np.array([[-100, 1, 0, -100], [-100, 1, -100, -100]])
    output = tagger(IDS, MASK, labels=tags)
    each = -np.log(keras.ops.softmax(output.logits))
    wanted = np.mean([each[0, 1, 1], each[0, 2, 0], each[1, 1, 1]])
    np.testing.assert_allclose(output.loss, [wanted], rtol=1e-5)

    output = reader(IDS, MASK, start_positions=np.array([1, 1]), end_positions=np.array([2, 1]))
    starts, ends = (
        keras.losses.sparse_categorical_crossentropy(np.array(t), logits, from_logits=True)
        for t, logits in (([1, 1], output.start_logits), ([2, 1], output.end_logits))
    )
    np.testing.assert_allclose(output.loss, (starts + ends) / 2, rtol=1e-5)
    assert guesser(IDS, MASK, labels=IDS).loss.shape == (1,)
    output = grader(IDS, MASK, labels=np.array([0.5, 2.0]))
    np.testing.assert_allclose(output.loss, (output.logits[:, 0] - [0.5, 2.0]) ** 2, rtol=1e-5)


def test_keras_files_bring_the_old_class_back(classifier, tmp_path):
    classifier.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again) is type(classifier)
    np.testing.assert_array_equal(again(IDS, MASK).logits, classifier(IDS, MASK).logits)


def test_everything_of_the_library_works_on_an_old_class(fresh, tmp_path):
    texts, labels = ["the film was good", "a very bad film"], ["LABEL_1", "LABEL_0"]
    examples = ft.data.from_arrays(texts, labels)
    with quiet():
        ft.train_only(fresh, ft.select.head())
        assert len(fresh.trainable_variables) == 2
        assert 0 <= ft.evaluate(fresh, examples).metrics["accuracy"] <= 1
        assert ft.predict(fresh, texts[0]).label in ("LABEL_0", "LABEL_1")
        fresh.export(tmp_path / "served")
        fresh.save_pretrained(tmp_path / "saved")
        plain = ft.load(tmp_path / "saved")
    loaded = tf.saved_model.load(tmp_path / "served")
    served = loaded.serve({"input_ids": IDS, "attention_mask": MASK, "token_type_ids": TYPES})
    np.testing.assert_allclose(served["logits"], fresh(IDS, MASK).logits, atol=1e-5)
    np.testing.assert_array_equal(plain(IDS), fresh(IDS).logits)


def test_the_encoder_alone(classifier, tiny_bert):
    with quiet():
        bare = compat.TFBertModel.from_pretrained(tiny_bert)
    expected = bare(IDS, MASK).last_hidden_state
    np.testing.assert_array_equal(classifier.bert(IDS, MASK)[0], expected)
    np.testing.assert_allclose(
        classifier.bert(IDS, MASK).pooler_output, bare(IDS, MASK).pooler_output, atol=1e-6
    )
    assert classifier.base_model.embeddings is classifier.get_layer("embeddings")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: m(inputs_embeds=np.zeros((1, 2, 24))), ModelError, "inputs_embeds is not supp"),
        (lambda m: m(IDS, position_ids=IDS), ModelError, "position_ids is not supported; the mod"),
        (lambda m: m(attention_mask=MASK), ModelError, "takes the inputs input_ids, token_type"),
        (lambda m: m(IDS, nonsense=1), TypeError, "nonsense"),
        (lambda m: m("good"), ModelError, r"found a str. For plain texts use ft.predict\(model"),
        (lambda m: m(["good", "bad"]), ModelError, r"found a str. For plain texts use ft.pred"),
        (lambda m: m.generate(IDS), ModelError, "ForSequenceClassification does not generate"),
        (
            lambda m: setattr(m, "classifier", keras.layers.Dense(5)),
            ModelError,
            r"that is assigned would be in no model. Write from_pretrained\(…, num_labels=n\)",
        ),
        (lambda m: m.save("folder"), ModelError, r"model.export\(folder\) to serve .*'model.ke"),
        (lambda m: m.config.nonsense, AttributeError, "config has no key 'nonsense'"),
        (
            lambda m: m.fit({"input_ids": IDS, "attention_mask": MASK}, verbose=0),
            DataError,
            r"no labels to learn from: .*inputs\['labels'\]; found the inputs input_ids, attention",
        ),
    ],
)
def test_calls_that_cannot_be(fresh, call, error, message):
    with quiet(), pytest.raises(error, match=message):
        call(fresh)


def test_what_would_be_left_out_in_silence(classifier, tiny_bert):
    with pytest.raises(TypeError, match="takes no num_label; it takes num_labels, config and"):
        type(classifier).from_pretrained(tiny_bert, num_label=3)
    rows = {"input_ids": [[2, 7, 3]], "labels": [1]}
    with pytest.raises(ModelError, match="pads by itself and would leave out what <function"):
        classifier.prepare_tf_dataset(rows, collate_fn=lambda features: features)
    with pytest.raises(ModelError, match="predict_with_generate: no family here generates"):
        compat.KerasMetricCallback(len, [], predict_with_generate=True)
    with pytest.raises(ModelError, match="save_strategy is 'epoch' or 'no', found 'steps'"):
        compat.PushToHubCallback("folder", save_strategy="steps")
    optimizer = compat.AdamWeightDecay(2e-5, exclude_from_weight_decay=["bias", "pooler"])
    assert optimizer.no_decay[1] == "pooler"
    assert len(compat.AdamWeightDecay(2e-5).no_decay) == 0
    with pytest.raises(ImportError, match="nor transformers 5.* has 'np'"):
        _ = compat.np


def test_a_bare_model_has_no_loss(tiny_bert):
    with quiet():
        model = compat.TFBertModel.from_pretrained(tiny_bert)
        model.compile(keras.optimizers.Adam(1e-5), "mse")
        with pytest.raises(ModelError, match="A bare model has no loss of its own: put layers on"):
            model.fit({"input_ids": IDS}, np.array([0.0, 1.0]), verbose=0)


def test_a_checkpoint_of_another_family(tiny_bert):
    with pytest.raises(ModelError, match="is a bert model and TFRobertaModel is for roberta mod"):
        compat.TFRobertaModel.from_pretrained(tiny_bert)


def test_an_optimizer_of_keras_2(fresh):
    class Adam:
        """Stands for tf_keras, which cannot be installed beside Keras 3's tf.keras."""

    Adam.__module__ = "tf_keras.src.optimizers.adam"
    with pytest.raises(ModelError, match="one of tf_keras .Keras 2.*unset TF_USE_LEGACY_KERAS"):
        fresh.compile(Adam())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("TFTrainer", r"TFTrainer is gone. Write instead: model.compile\(\) and model.fit"),
        ("pipeline", r"pipeline is gone. Write instead: ft.predict\(model, texts\)"),
        ("glue_convert_examples_to_features", r"instead: tokenizer\(texts, pairs"),
        ("TFGPT2LMHeadModel", "no class 'TFGPT2LMHeadModel'; there are: TFAlbertForMaskedLM, "),
        ("TFBertMainLayer", r"MainLayer is gone. Write instead: TFBertModel\(config\), which is c"),
        ("BertTokeniser", "Neither finetune_tf.compat nor transformers 5.* has 'BertTokeniser'"),
    ],
)
def test_names_that_are_gone(name, message):
    # In the words that scripts use: Python replaces an AttributeError by a sentence of its own.
    with pytest.raises(ImportError, match=message):
        exec(f"from finetune_tf.compat import {name}")


def test_names_where_scripts_look_for_them():
    from finetune_tf.compat.keras_callbacks import KerasMetricCallback
    from finetune_tf.compat.modeling_tf_utils import TFPreTrainedModel

    assert KerasMetricCallback is compat.KerasMetricCallback
    assert issubclass(compat.TFBertModel, TFPreTrainedModel)
    assert compat.TFBertPreTrainedModel is TFPreTrainedModel
    everything = {}
    exec("from finetune_tf.compat import *", everything)
    assert everything["TFRobertaModel"] is compat.TFRobertaModel
    assert everything["RobertaConfig"] is compat.RobertaConfig
    assert {"BertTokenizerFast", "AutoTokenizer", "DataCollatorWithPadding"} <= everything.keys()
    example = compat.InputExample(guid=None, text_a="good", label=1)
    assert compat.InputFeatures([2, 7, 3], label=example.label).label == 1


def test_a_record_or_a_tuple_as_asked_for(tiny_bert):
    with quiet():
        model = compat.TFBertModel.from_pretrained(tiny_bert, return_dict=False)
    states, pooled = model(IDS, MASK)
    assert model(IDS, MASK, return_dict=True).pooler_output.shape == pooled.shape == (2, 24)
    assert states.shape == (2, 4, 24)


@pytest.mark.parametrize("family", ["roberta", "xlm-roberta", "camembert", "mpnet"])
def test_bare_models_have_the_pooler_that_they_had(family, tmp_path):
    with quiet():
        model = compat.TFAutoModel.from_pretrained(FOLDER / family / NAME)
        with np.load(FOLDER / family / NAME / "expected.npz") as stored:
            ids = stored["input_ids"]
        pooled = model(ids)[1]
        assert pooled is not None
        again = type(model).from_pretrained(model.save_pretrained(tmp_path / family))
    np.testing.assert_array_equal(again(ids).pooler_output, pooled)


def test_evaluate_gives_the_loss_alone_without_metrics(fresh):
    with quiet():
        fresh.compile(keras.optimizers.SGD(0.0))
    loss = fresh.evaluate({"input_ids": IDS, "labels": np.array([0, 1])}, verbose=0)
    expected = fresh(IDS, labels=np.array([0, 1])).loss
    assert loss == pytest.approx(float(np.mean(expected)), rel=1e-5)
    assert fresh(IDS[:1], labels=tf.constant(1)).loss.shape == (1,)
    assert fresh(IDS, labels=[0, 1]).loss.shape == (2,)
    fresh.fit({"input_ids": IDS}, np.array([0, 1]), verbose=0, workers=4)
    assert fresh.predict_on_batch({"input_ids": IDS}).logits.shape == (2, 2)


def test_the_parts_of_a_model_answer_as_they_did(classifier):
    encoder, head = classifier.layers[0], classifier.classifier
    assert encoder.name == "bert" and encoder.config.hidden_size == 24
    assert len(encoder.weights) == len(classifier.weights) - len(head.weights)
    assert encoder.count_params() == classifier.count_params() - head.count_params()
    assert len(encoder(IDS, output_hidden_states=True).hidden_states) == 3
    assert encoder(IDS, output_attentions=True).attentions[0].shape == (2, 3, 4, 4)


def test_the_layers_that_scripts_loop_over(classifier, tiny_bert):
    assert [layer.name for layer in classifier.layers][:1] == ["bert"]
    assert classifier.layers[-1] is classifier.classifier
    assert len(classifier.get_config()["layers"]) > len(classifier.layers)  # Keras sees them all
    assert classifier.get_layer("embeddings") is classifier.bert.embeddings
    with quiet():
        (encoder,) = compat.TFBertModel.from_pretrained(tiny_bert).layers
    assert len(encoder.encoder.layer) == 2


def test_an_encoder_that_a_model_of_ones_own_takes_over(fresh):
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
def test_what_a_subclass_cannot_have(name):
    with pytest.raises(ModelError, match=f"^Own cannot have a {name} of its own: "):
        type("Own", (compat.TFBertForSequenceClassification,), {name: lambda self: None})


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


def test_thawing_reaches_what_was_frozen_by_itself(fresh):
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
def test_what_is_head_and_what_is_encoder(family, outside):
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


def test_a_weights_file_with_a_config(classifier, tmp_path):
    with quiet():
        folder = classifier.save_pretrained(tmp_path / "saved")
        config = compat.AutoConfig.from_pretrained(folder)
        file = (folder / "model.safetensors").rename(tmp_path / "bert.safetensors")
        model = type(classifier).from_pretrained(str(file), config=config)
        assert compat.TFAutoModel.from_pretrained(file, config=config).family == "bert"
    np.testing.assert_array_equal(model(IDS).logits, classifier(IDS).logits)


def test_an_encoder_under_the_name_that_keras_gave_it(tiny_bert):
    ids = keras.Input((4,), dtype="int32")
    with quiet():
        bert = compat.TFBertModel.from_pretrained(tiny_bert)
    model = keras.Model(ids, keras.layers.Dense(2)(bert(ids)[1]))
    assert any(layer.name.startswith("tf_bert_model") for layer in model.layers)


def test_predict_gives_a_record_whatever_a_call_gives(tiny_bert):
    with quiet():
        model = compat.TFBertModel.from_pretrained(tiny_bert, return_dict=False)
    assert model.predict(IDS, verbose=0).last_hidden_state.shape == (2, 4, 24)


def test_metrics_of_arrays(fresh):
    found = []
    callback = compat.KerasMetricCallback(
        lambda pair: found.append(pair) or {"rows": len(pair[1])}, ({"input_ids": IDS}, [0, 1])
    )
    with quiet():
        fresh.compile(keras.optimizers.SGD(0.0))
        history = fresh.fit({"input_ids": IDS}, np.array([0, 1]), callbacks=[callback], verbose=0)
    assert history.history["rows"] == [2] and found[0][0].shape == (2, 2)


def test_options_of_tokenizers(tiny_bert, tmp_path):
    tokenizer = compat.BertTokenizer.from_pretrained(
        tiny_bert, do_lower_case=False, add_special_tokens=True, pad_to_max_length=True
    )
    assert tokenizer.tokenize("The film") == ["[UNK]", "film"]
    tokenizer.save_pretrained(tmp_path)
    again = compat.BertTokenizer(vocab_file=str(tmp_path / "vocab.txt"))
    assert again("The film")["input_ids"] == [2, again.vocab["the"], again.vocab["film"], 3]
    with (tmp_path / "vocab.txt").open("a", encoding="utf-8") as file:
        file.write("##s\n")
    wider = compat.BertTokenizer(str(tmp_path / "vocab.txt"))
    assert wider.encode(["film", "##s"]) == wider.encode("films")
    with pytest.raises(DataError, match=r"these tokens, '\[MASK\]s', would become others. Write"):
        wider.encode(["[MASK]", "##s"])


def test_states_asked_for_in_the_config(fresh, tmp_path):
    fresh.config.output_hidden_states = True
    assert len(fresh(IDS).hidden_states) == 3 and fresh(IDS).attentions is None
    assert "hidden_states" not in fresh(IDS, output_hidden_states=False)
    fresh.config.save_pretrained(tmp_path)
    assert (tmp_path / "config.json").read_text(encoding="utf-8") == fresh.config.to_json_string()
    with quiet():
        again = compat.TFBertModel(compat.AutoConfig.from_pretrained(tmp_path))
    assert len(again(IDS).hidden_states) == 3


def test_collators_that_give_tensors():
    rows = [{"input_ids": [2, 7, 3], "label": 1}, {"input_ids": [2, 8, 3], "label": 0}]
    batch = compat.default_data_collator(rows, return_tensors="tf")
    assert batch["labels"].numpy().tolist() == [1, 0]
    assert batch["input_ids"].dtype == tf.int32


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


def test_old_tokenizer_calls(tiny_bert, tmp_path):
    tokenizer = compat.AutoTokenizer.from_pretrained(tiny_bert)
    tokens = tokenizer.tokenize("the film was good")
    ids = tokenizer("the film was good")["input_ids"]
    assert tokenizer.encode(tokens) == tokenizer.encode("the film was good") == ids
    assert tokenizer.encode_plus(tokenizer.convert_tokens_to_ids(tokens))["input_ids"] == ids
    assert tokenizer.encode(["the", "film"], is_split_into_words=True) == [*ids[:3], ids[-1]]
    texts = np.array(["the film", "good"], dtype=object)
    encoding = tokenizer.batch_encode_plus(texts, padding=True, return_tensors="tf")
    assert tokenizer.batch_decode(encoding["input_ids"], skip_special_tokens=True) == list(texts)
    assert tokenizer.decode(encoding["input_ids"][0][1]) == "the"
    short = tokenizer("the film was good", truncation_strategy="longest_first", max_length=4)
    assert short["input_ids"] == [*ids[:3], ids[-1]]
    assert pickle.loads(pickle.dumps(tokenizer))("good") == tokenizer("good")
    tokenizer.save_pretrained(tmp_path)
    lines = (tmp_path / "vocab.txt").read_text(encoding="utf-8").split("\n")
    assert lines[ids[1]] == "the" and lines[0] == "[PAD]"
    with pytest.raises(DataError, match=r"different lengths. Write tokenizer\(texts, padding=True"):
        tokenizer(["the film", "good"], return_tensors="tf")


def test_save_pretrained_with_a_saved_model(classifier, tmp_path):
    with quiet():
        classifier.save_pretrained(tmp_path, saved_model=True)
    assert (tmp_path / "saved_model" / "1" / "saved_model.pb").is_file()


def test_a_trained_head_for_other_labels_is_replaced_only_on_demand(classifier, tmp_path):
    with quiet():
        classifier.save_pretrained(tmp_path / "three")
        cls = type(classifier)
        with pytest.raises(ft.errors.CheckpointError, match="has a head trained for the labels"):
            cls.from_pretrained(tmp_path / "three", num_labels=5)
        other = cls.from_pretrained(tmp_path / "three", num_labels=5, ignore_mismatched_sizes=True)
    assert other(IDS).logits.shape == (2, 5)


def test_the_rest_of_the_library_does_not_know_of_it():
    package = Path(ft.__file__).parent
    others = [
        p for p in package.rglob("*.py") if "compat" not in p.parts and p.name != "__init__.py"
    ]
    assert len(others) > 90
    assert not [p for p in others if "compat" in p.read_text(encoding="utf-8").split("import")]
    assert not [p for p in others if "finetune_tf.compat" in p.read_text(encoding="utf-8")]
