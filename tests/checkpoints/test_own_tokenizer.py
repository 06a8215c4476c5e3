"""A model from a config gets the tokenizer of its user, and keeps it when it is saved."""

import numpy as np
import pytest
from helpers_decoders import word_tokenizer
from helpers_models import ENGLISH
from tokenizers import Tokenizer, models

import finetune_tf as ft
from finetune_tf.errors import CheckpointError, DataTypeError
from finetune_tf.generation.settings import GenerationSettings

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
