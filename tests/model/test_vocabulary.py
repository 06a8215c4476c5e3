"""Embeddings of tokens that were added to the tokenizer, and models without a checkpoint."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

import finetune_tf as ft
from finetune_tf.errors import CheckpointError, ModelError
from finetune_tf.graph.hidden_states import with_states
from finetune_tf.graph.traces import traces_of
from finetune_tf.messages import quiet

REFERENCES = Path(__file__).resolve().parents[1] / "references"
IDS = np.array([[2, 7, 8, 3]], "int32")


@pytest.mark.slow
@pytest.mark.parametrize("task", ["text-classification", "fill-mask"])
def test_more_rows_and_fewer(tiny_bert, tmp_path, task):
    with quiet():
        model = ft.load(tiny_bert, task)
    before, size = np.asarray(model(IDS)), model.config["vocab_size"]
    model.resize_token_embeddings(size + 3)
    after = np.asarray(model(IDS))
    if task == "fill-mask":
        assert after.shape[-1] == size + 3
        after = after[..., :size]
    np.testing.assert_allclose(after, before, atol=1e-6)
    assert np.isfinite(np.asarray(model(np.array([[2, size + 2, 3]])))).all()

    with quiet():
        model.compile()
        targets = IDS if task == "fill-mask" else np.array([1])
        model.fit({"input_ids": IDS}, targets, verbose=0)
        again = ft.load(model.save_pretrained(tmp_path / "larger"), task)
    np.testing.assert_array_equal(again(IDS), model(IDS))

    with pytest.raises(ModelError, match="Resize the vocabulary before compile"):
        model.resize_token_embeddings(size)
    again.resize_token_embeddings(12)
    assert again.get_layer("embeddings").word.embeddings.shape[0] == 12


@pytest.mark.parametrize(
    ("folder", "task"),
    [("gpt2/text-generation", "text-generation"), ("eurobert/text-classification", "fill-mask")],
)
def test_a_head_of_its_own_has_as_many_outputs(folder, task, tmp_path):
    with quiet():
        model = ft.load(REFERENCES / folder, task, dropout=0.0)
        before, size = np.asarray(model(IDS)), model.config["vocab_size"]
        model.resize_token_embeddings(size + 3)
        after = np.asarray(model(IDS))
        assert after.shape[-1] == size + 3
        np.testing.assert_allclose(after[..., :size], before, atol=1e-6)
        model.set_weights([weight + 0.01 for weight in model.get_weights()])
        again = ft.load(model.save_pretrained(tmp_path / "larger"), task, dropout=0.0)
    np.testing.assert_array_equal(again(IDS), model(IDS))
    again.resize_token_embeddings(12)
    assert again(IDS).shape[-1] == 12


TEXT_TO_TEXT = "text2text-generation"
PAIR = {"input_ids": IDS, "decoder_input_ids": IDS[:, :3]}


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_an_encoder_decoder_with_one_vocabulary(family, tmp_path):
    with quiet():
        model = ft.load(REFERENCES / family / TEXT_TO_TEXT, dropout=0.0)
        before, size = np.asarray(model(PAIR)), model.config["vocab_size"]
        model.resize_token_embeddings(size + 3)
        after = np.asarray(model(PAIR))
        again = ft.load(model.save_pretrained(tmp_path / "larger"), dropout=0.0)
    assert after.shape[-1] == size + 3
    np.testing.assert_allclose(after[..., :size], before, atol=1e-6)
    np.testing.assert_array_equal(again(PAIR), after)
    if family == "bart":  # whose bias is a constant
        assert not model.get_layer("vocabulary_bias").trainable_variables


def test_the_size_of_marians_decoder_follows_a_shared_vocabulary():
    config = {"model_type": "marian", "vocab_size": 20, "decoder_vocab_size": 20, "d_model": 8}
    for side in ("encoder", "decoder"):
        sizes = {"layers": 1, "attention_heads": 2, "ffn_dim": 8}
        config |= {f"{side}_{name}": size for name, size in sizes.items()}
    with quiet():
        model = ft.load(config | {"pad_token_id": 1, "decoder_start_token_id": 1}, TEXT_TO_TEXT)
    model.resize_token_embeddings(23)
    assert model.config["vocab_size"] == model.config["decoder_vocab_size"] == 23
    assert model({**PAIR, "decoder_input_ids": np.array([[1, 22]])}).shape == (1, 2, 23)


@pytest.mark.parametrize("family", ["marian", "pegasus"])
def test_two_vocabularies_are_not_resized(family):
    with quiet():
        model = ft.load(REFERENCES / family / TEXT_TO_TEXT)
    with pytest.raises(ModelError, match="have token embeddings of their own, so one size does"):
        model.resize_token_embeddings(50)


@pytest.mark.slow
def test_what_was_traced_before_is_forgotten(tiny_bert):
    with quiet():
        model = ft.load(tiny_bert, labels=["neg", "pos"])
        outer = keras.Model(model.inputs, model.get_layer("block_0").output)
    texts = ["good film", "bad"]
    before = [p.score for p in ft.predict(model, texts)]
    model.predict(IDS, verbose=0)
    with_states(model)
    traces_of(outer)["outputs"] = "traced by somebody"
    size = model.config["vocab_size"]
    model.tokenizer.add_tokens(["unheard"])
    model.resize_token_embeddings(size + 1)
    assert traces_of(outer) == traces_of(model) == {}  # they share their layers
    assert [p.score for p in ft.predict(model, texts)] == pytest.approx(before)
    table = model.get_layer("embeddings").word.embeddings
    table.assign(table * 2.0)
    assert [p.score for p in ft.predict(model, texts)] != pytest.approx(before, abs=1e-4)
    new = np.array([[2, size, 3]])
    np.testing.assert_allclose(model.predict(new, verbose=0), model(new), atol=1e-6)
    assert ft.predict(model, "unheard").score == pytest.approx(
        float(keras.ops.max(keras.ops.softmax(model(new)))), abs=1e-6
    )


def test_traces_of_other_models_stay(tiny_bert):
    with quiet():
        model, other = (ft.load(tiny_bert, labels=2) for _ in range(2))
    traces_of(other)["outputs"] = "traced"
    model.resize_token_embeddings(12)
    assert traces_of(other) == {"outputs": "traced"}


def test_a_tokenizer_where_there_was_none(tiny_bert):
    config = json.loads((tiny_bert / "config.json").read_text())
    with quiet():
        model, other = ft.load(config, labels=2), ft.load(tiny_bert, labels=2)
    model.tokenizer = other.tokenizer
    assert model.tokenizer is other.tokenizer
    assert len(ft.predict(model, ["good film", "bad"])) == 2


@pytest.mark.parametrize("size", [0, -3, 2.5, "7"])
def test_sizes_that_are_none(tiny_bert, size):
    with quiet():
        model = ft.load(tiny_bert)
    with pytest.raises(ModelError, match=f"size must be an integer >= 1, found {size!r}"):
        model.resize_token_embeddings(size)


def test_a_model_with_random_weights(tiny_bert, capsys):
    config = json.loads((tiny_bert / "config.json").read_text())
    model = ft.load(config, labels=["a", "b", "c"])
    assert "Loaded a new bert model: 0 of 41 variables filled; new: " in capsys.readouterr().out
    assert model(IDS).shape == (1, 3)
    assert len(model.trainable_variables) == 41
    with pytest.raises(CheckpointError, match="The config has the model_type None"):
        ft.load({"hidden_size": 3})
    with pytest.raises(CheckpointError, match="folder a new bert model, from which the tokenizer"):
        ft.predict(model, "good")


def test_keys_that_replace_those_of_the_config(tiny_bert):
    with quiet():
        model = ft.load(tiny_bert, config={"layer_norm_eps": 0.5, "hidden_dropout_prob": 0.3})
        plain = ft.load(tiny_bert)
    assert model.config["layer_norm_eps"] == 0.5
    assert model.get_layer("block_0").dropout.rate == 0.3
    inputs = (IDS, np.zeros_like(IDS))
    first, second = (each.get_layer("embeddings")(*inputs) for each in (model, plain))
    assert not np.allclose(first, second)
    with pytest.raises(CheckpointError, match="'hidden_act' has the value 'nope', which bert mod"):
        ft.load(tiny_bert, config={"hidden_act": "nope"})
