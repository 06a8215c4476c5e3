"""Tests of the TensorFlow models of transformers 4 that still apply."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import finetune_tf as ft
from finetune_tf import compat
from finetune_tf.errors import DataError, ModelError
from finetune_tf.families import FAMILIES
from finetune_tf.messages import quiet
from finetune_tf.tasks import TASKS

FOLDER, NAME = Path(__file__).resolve().parents[1] / "references", "text-classification"
IDS = np.array([[2, 6, 7, 3], [2, 8, 3, 0]], "int32")
MASK = np.array([[1, 1, 1, 1], [1, 1, 1, 0]], "int32")
TYPES = np.zeros_like(IDS)


# Encoder-decoders have classes for text to text alone; test_old_language_models.py tests them.
ENCODERS = [name for name in FAMILIES if (FOLDER / name / NAME).is_dir()]


def test_there_is_a_class_for_every_head_of_a_family():
    tasks = [task for task in TASKS.values() if task.has_old_classes]
    assert len(tasks) == 10
    pairs = []
    for family in (family for family in FAMILIES.values() if family.has_old_classes):
        heads = family.heads(family.complete({"model_type": family.model_type}))
        # A head with a backbone of its own is that of a prefix language model, which is new.
        known = [task for task in tasks if task.name in heads and not heads[task.name].backbone]
        pairs += [(family, task) for task in known]
    names = {f"TF{family.class_name(task.class_suffix)}" for family, task in pairs}
    assert len(names) == len(pairs)
    assert names < compat.CLASSES.keys()
    assert all(issubclass(getattr(compat, name), ft.FineTuneModel) for name in names)
    assert ft.TFXLMRobertaForTokenClassification is compat.TFXLMRobertaForTokenClassification
    for name in (
        "Model",
        "ModelForSequenceClassification",
        "ModelForMaskedLM",
        "ModelForSeq2SeqLM",
    ):
        assert getattr(compat, f"TFAuto{name}").__name__ == f"TFAuto{name}"


@pytest.mark.parametrize("family", ENCODERS)
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
def test_hidden_states_of_every_token_with_a_head_on_the_first(family):
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
@pytest.mark.parametrize("family", ENCODERS)
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
def test_all_call_signatures_are_equivalent(classifier, args, kwargs):
    output = classifier(*args, **kwargs)
    expected = classifier.call({"input_ids": IDS, "attention_mask": MASK})
    np.testing.assert_array_equal(output.logits, expected)
    np.testing.assert_array_equal(output["logits"], expected)
    np.testing.assert_array_equal(output[-1], expected)
    np.testing.assert_array_equal(output.to_tuple()[-1], expected)


def test_fields_that_were_not_computed(classifier):
    output = classifier(IDS)
    assert list(output) == ["logits"]
    assert output.loss is output.hidden_states is output.attentions is None
    with pytest.raises(AttributeError, match="output has no 'logit'. It has logits"):
        _ = output.logit


def test_losses_have_the_shapes_of_transformers_4(tiny_bert, classifier):
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


def test_keras_files_restore_the_class(classifier, tmp_path):
    classifier.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again) is type(classifier)
    np.testing.assert_array_equal(again(IDS, MASK).logits, classifier(IDS, MASK).logits)


@pytest.mark.slow
def test_library_functions_work_with_an_old_class(fresh, tmp_path):
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


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: m(inputs_embeds=np.zeros((1, 2, 24))), ModelError, "inputs_embeds is not supp"),
        (lambda m: m(IDS, position_ids=IDS), ModelError, "position_ids is not supported; the mod"),
        (lambda m: m(attention_mask=MASK), ModelError, "expects the inputs input_ids, token_ty"),
        (lambda m: m(IDS, nonsense=1), TypeError, "nonsense"),
        (lambda m: m("good"), ModelError, r"found a str. For plain texts use ft.predict\(model"),
        (lambda m: m(["good", "bad"]), ModelError, r"found a str. For plain texts use ft.pred"),
        (lambda m: m.generate(IDS), ModelError, "ForSequenceClassification does not generate"),
        (
            lambda m: setattr(m, "classifier", keras.layers.Dense(5)),
            ModelError,
            r"head cannot be replaced by assignment. Use from_pretrained\(…, num_labels=n\)",
        ),
        (lambda m: m.save("folder"), ModelError, r"model.export\(folder\) to serve .*'model.ke"),
        (lambda m: m.config.nonsense, AttributeError, "config has no key 'nonsense'"),
        (
            lambda m: m.fit({"input_ids": IDS, "attention_mask": MASK}, verbose=0),
            DataError,
            r"no labels to train on: .*inputs\['labels'\]; found the inputs input_ids, attention",
        ),
    ],
)
def test_invalid_calls_raise_errors(fresh, call, error, message):
    with quiet(), pytest.raises(error, match=message):
        call(fresh)


def test_unsupported_options_raise_errors(classifier, tiny_bert):
    with pytest.raises(TypeError, match="takes no num_label; it takes num_labels, config and"):
        type(classifier).from_pretrained(tiny_bert, num_label=3)
    rows = {"input_ids": [[2, 7, 3]], "labels": [1]}
    with pytest.raises(DataError, match="a dict of arrays by name, found list"):
        classifier.prepare_tf_dataset(rows, collate_fn=lambda features: features)
    with pytest.raises(ModelError, match="save_strategy must be 'epoch' or 'no', found 'steps'"):
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
    with pytest.raises(ModelError, match="is a bert model, but TFRobertaModel is for roberta mod"):
        compat.TFRobertaModel.from_pretrained(tiny_bert)


def test_an_optimizer_of_keras_2(fresh):
    class Adam:
        """Stands for tf_keras, which cannot be installed beside Keras 3's tf.keras."""

    Adam.__module__ = "tf_keras.src.optimizers.adam"
    with pytest.raises(ModelError, match="belongs to tf_keras .Keras 2.*Unset TF_USE_LEGACY_KERAS"):
        fresh.compile(Adam())


def test_return_dict(tiny_bert):
    with quiet():
        model = compat.TFBertModel.from_pretrained(tiny_bert, return_dict=False)
    states, pooled = model(IDS, MASK)
    assert model(IDS, MASK, return_dict=True).pooler_output.shape == pooled.shape == (2, 24)
    assert states.shape == (2, 4, 24)


@pytest.mark.slow
def test_evaluate_without_metrics_returns_the_loss(fresh):
    with quiet():
        fresh.compile(keras.optimizers.SGD(0.0))
    loss = fresh.evaluate({"input_ids": IDS, "labels": np.array([0, 1])}, verbose=0)
    expected = fresh(IDS, labels=np.array([0, 1])).loss
    assert loss == pytest.approx(float(np.mean(expected)), rel=1e-5)
    assert fresh(IDS[:1], labels=tf.constant(1)).loss.shape == (1,)
    assert fresh(IDS, labels=[0, 1]).loss.shape == (2,)
    fresh.fit({"input_ids": IDS}, np.array([0, 1]), verbose=0, workers=4)
    assert fresh.predict_on_batch({"input_ids": IDS}).logits.shape == (2, 2)


def test_a_weights_file_with_a_config(classifier, tmp_path):
    with quiet():
        folder = classifier.save_pretrained(tmp_path / "saved")
        config = compat.AutoConfig.from_pretrained(folder)
        file = (folder / "model.safetensors").rename(tmp_path / "bert.safetensors")
        model = type(classifier).from_pretrained(str(file), config=config)
        assert compat.TFAutoModel.from_pretrained(file, config=config).family == "bert"
    np.testing.assert_array_equal(model(IDS).logits, classifier(IDS).logits)


def test_predict_returns_a_model_output(tiny_bert):
    with quiet():
        model = compat.TFBertModel.from_pretrained(tiny_bert, return_dict=False)
    assert model.predict(IDS, verbose=0).last_hidden_state.shape == (2, 4, 24)


@pytest.mark.slow
def test_metrics_of_arrays(fresh):
    found = []
    callback = compat.KerasMetricCallback(
        lambda pair: found.append(pair) or {"rows": len(pair[1])}, ({"input_ids": IDS}, [0, 1])
    )
    with quiet():
        fresh.compile(keras.optimizers.SGD(0.0))
        history = fresh.fit({"input_ids": IDS}, np.array([0, 1]), callbacks=[callback], verbose=0)
    assert history.history["rows"] == [2] and found[0][0].shape == (2, 2)


def test_hidden_states_requested_in_the_config(fresh, tmp_path):
    fresh.config.output_hidden_states = True
    assert len(fresh(IDS).hidden_states) == 3 and fresh(IDS).attentions is None
    assert "hidden_states" not in fresh(IDS, output_hidden_states=False)
    fresh.config.save_pretrained(tmp_path)
    assert (tmp_path / "config.json").read_text(encoding="utf-8") == fresh.config.to_json_string()
    with quiet():
        again = compat.TFBertModel(compat.AutoConfig.from_pretrained(tmp_path))
    assert len(again(IDS).hidden_states) == 3


@pytest.mark.slow
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
