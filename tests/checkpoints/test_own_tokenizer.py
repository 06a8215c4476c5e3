"""A model from a config gets the tokenizer of its user, and keeps it when it is saved."""

import shutil

import keras
import numpy as np
import pytest
import transformers
from helpers_decoders import word_tokenizer
from helpers_models import ENGLISH, SPECIAL
from tokenizers import Tokenizer, models

import finetune_tf as ft
from finetune_tf.errors import CheckpointError, DataTypeError
from finetune_tf.generation.settings import GenerationSettings
from finetune_tf.messages import quiet

SIZES = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "max_position_embeddings": 16}
SIZES |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
SIZES |= {"encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
CONFIGS = {
    "t5": {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2},
    **dict.fromkeys(["bart", "mbart", "marian", "pegasus"], SIZES),
}
LLAMA = {
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
}


@pytest.mark.parametrize(
    ("family", "start"),
    [("t5", 0), ("bart", 1), ("marian", 0), ("pegasus", 0), ("mbart", None)],
)
def test_the_tokenizer_determines_the_vocabulary_and_the_special_tokens(family, start):
    """The decoder starts with the padding or with the end, as in the checkpoints of a family."""
    config = {"model_type": family, **CONFIGS[family]}
    model = ft.load(config, "translation", tokenizer=word_tokenizer())

    assert model.config["vocab_size"] == len(ENGLISH) + 3
    assert (model.config["pad_token_id"], model.config["eos_token_id"]) == (0, 1)
    assert model.config["decoder_start_token_id"] == start
    assert model.config.get("forced_eos_token_id") == (None if family == "t5" else 1)


def test_keys_of_the_config_take_precedence():
    given = {**LLAMA, "vocab_size": 32, "eos_token_id": 2}
    model = ft.load(given, "text-generation", tokenizer=word_tokenizer())
    assert model.config["vocab_size"] == 32
    assert (model.config["pad_token_id"], model.config["eos_token_id"]) == (0, 2)


@pytest.mark.slow
def test_the_tokenizer_is_used_saved_and_loaded_again(tmp_path):
    model = ft.load(LLAMA, "text-generation", tokenizer=word_tokenizer())
    text = ft.generate(model, "a very good", max_new_tokens=4)
    again = ft.load(model.save_pretrained(tmp_path / "saved"))

    assert again.tokenizer.get_vocab() == word_tokenizer().get_vocab()
    assert ft.generate(again, "a very good", max_new_tokens=4) == text
    np.testing.assert_array_equal(again(np.array([[5, 6]])), model(np.array([[5, 6]])))


def test_a_tokenizer_that_is_set_later_ends_texts_too():
    config = {**LLAMA, "vocab_size": len(word_tokenizer())}
    model = ft.load(config, "text-generation")
    assert GenerationSettings.of(model).eos_token_id == ()
    model.tokenizer = word_tokenizer()
    assert GenerationSettings.of(model).eos_token_id == (1,)


def test_it_replaces_the_tokenizer_of_a_checkpoint(tiny_decoder):
    tokenizer = word_tokenizer()
    assert ft.load(tiny_decoder, tokenizer=tokenizer).tokenizer is tokenizer


def test_objects_that_are_no_tokenizers(tiny_decoder):
    for wrong in (Tokenizer(models.WordLevel({"a": 0})), "folder"):
        with pytest.raises(DataTypeError, match="Wrap one of the package tokenizers: transformers"):
            ft.load(tiny_decoder, tokenizer=wrong)


def test_a_tokenizer_with_more_tokens_than_the_model(tiny_decoder):
    tokenizer = word_tokenizer()
    tokenizer.add_tokens(["comedy"])
    with pytest.raises(CheckpointError, match="has 21 tokens, but the model has embeddings for 20"):
        ft.load(tiny_decoder, tokenizer=tokenizer)


def test_a_model_from_a_config_may_have_a_high_learning_rate(recwarn, tmp_path):
    """A learning rate that suits a new model ruins a trained one."""
    model = ft.load(LLAMA, "text-generation", tokenizer=word_tokenizer())
    model.compile(**ft.presets.cross_entropy(learning_rate=2e-3))
    assert not [warning for warning in recwarn if "learning rate" in str(warning.message)]

    again = ft.load(model.save_pretrained(tmp_path / "saved"))
    with pytest.warns(UserWarning, match="A learning rate of 0.002 usually ruins"):
        again.compile(**ft.presets.cross_entropy(learning_rate=2e-3))


def changed(model, how):
    """Gives a model a tokenizer that its checkpoint does not have."""
    if how == "another one":
        words = {word: i for i, word in enumerate([*SPECIAL, *reversed(ENGLISH)])}
        model.tokenizer = transformers.BertTokenizer(vocab=words)
    elif how == "a token more":
        model.tokenizer.add_tokens(["comedy"])
        model.resize_token_embeddings(len(model.tokenizer))
    else:
        model.tokenizer.truncation_side = "left"


@pytest.mark.parametrize("how", ["another one", "a token more", "a setting"])
def test_a_keras_file_has_the_tokenizer_of_the_model(how, tiny_bert, tmp_path):
    """It names the folder of the checkpoint, whose tokenizer would give other tokens."""
    texts = ["a good comedy", " ".join(["good"] * 20 + ["bad"] * 20)]
    with quiet():
        model = ft.load(tiny_bert, labels=["no", "yes"])
        plain = ft.data.from_arrays(texts).encoded(model, targets=False).inputs["input_ids"].rows
        changed(model, how)
        expected = ft.data.from_arrays(texts).encoded(model, targets=False).inputs["input_ids"].rows
        model.save(tmp_path / "one.keras")
        again = keras.saving.load_model(tmp_path / "one.keras")
        again.save(tmp_path / "two.keras")  # before its tokenizer has been used
        last = keras.saving.load_model(tmp_path / "two.keras")
        copy = type(model).from_config(model.get_config())
    assert not all(map(np.array_equal, plain, expected))
    for each in (again, last, copy):
        found = ft.data.from_arrays(texts).encoded(each, targets=False).inputs["input_ids"].rows
        assert all(map(np.array_equal, found, expected))
        assert each.tokenizer.get_vocab() == model.tokenizer.get_vocab()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("truncation_side", "left"),
        ("padding_side", "left"),
        ("model_input_names", ["input_ids", "attention_mask"]),
        ("clean_up_tokenization_spaces", True),
    ],
)
def test_a_checkpoint_has_settings_that_were_changed(name, value, tiny_bert, tmp_path):
    """transformers alone writes those that the tokenizer was made with."""
    with quiet():
        model = ft.load(tiny_bert, labels=["no", "yes"])
        before = getattr(model.tokenizer, name)
        setattr(model.tokenizer, name, value)
        again = ft.load(model.save_pretrained(tmp_path / "saved"))
        assert getattr(again.tokenizer, name) == value != before
        again.tokenizer.save_pretrained(tmp_path / "tokenizer")
        setattr(again.tokenizer, name, before)
        restored = ft.load(again.save_pretrained(tmp_path / "restored"))
    assert getattr(restored.tokenizer, name) == before


def test_a_keras_file_without_the_folder_of_the_checkpoint(tiny_bert, tmp_path):
    """A tokenizer that the file contains does not need the folder."""
    folder = shutil.copytree(tiny_bert, tmp_path / "copy")
    with quiet():
        model = ft.load(folder, labels=["no", "yes"])
        model.tokenizer.add_tokens(["comedy"])
        model.resize_token_embeddings(len(model.tokenizer))
        model.save(tmp_path / "model.keras")
        expected = ft.predict(model, "a good comedy")
        shutil.rmtree(folder)
        again = keras.saving.load_model(tmp_path / "model.keras")
        assert ft.predict(again, "a good comedy") == expected
        ft.load(again.save_pretrained(tmp_path / "saved"))


def test_a_keras_file_of_a_model_from_a_config(tmp_path):
    """Its texts end with the token of its tokenizer, as before."""
    with quiet():
        model = ft.load(LLAMA, "text-generation", tokenizer=word_tokenizer())
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
    ends = [GenerationSettings.of(each).eos_token_id for each in (again, model)]
    assert ends[0] == ends[1] is not None
    assert again.tokenizer.get_vocab() == model.tokenizer.get_vocab()


def test_an_unchanged_tokenizer_is_not_stored(tiny_bert):
    with quiet():
        model = ft.load(tiny_bert, labels=["no", "yes"])
        model.tokenizer(["a good film"], truncation=True, max_length=4, padding=True)
        assert "tokenizers" not in model.get_config()
