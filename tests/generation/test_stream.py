"""`ft.stream`: pieces of text that together are the text of `ft.generate`."""

import json

import keras
import numpy as np
import pytest
from helpers_decoders import byte_tokenizer, sentencepiece_tokenizer, write_decoder
from helpers_text_to_text import write_tokenizer
from transformers import AutoTokenizer

import finetune_tf as ft
from finetune_tf.errors import ArgumentError, DataError, DataTypeError, ModelError
from finetune_tf.generation.stream import _pieces
from finetune_tf.messages import quiet


@pytest.fixture(scope="module")
def model(tiny_decoder):
    with quiet():
        return ft.load(tiny_decoder)


@pytest.fixture(scope="module")
def byte_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bytes")
    with quiet():
        return ft.load(write_decoder(folder, 0, byte_tokenizer(), n_positions=64))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"do_sample": True, "seed": 3},
        {"do_sample": True, "seed": 4, "stop_strings": ["e", "o"]},
    ],
)
def test_pieces_are_the_text_of_generate(byte_model, options):
    options = {"max_new_tokens": 30, "repetition_penalty": 1.2, **options}
    pieces = list(ft.stream(byte_model, "the", **options))
    assert all(pieces) and len(pieces) > 1
    assert "".join(pieces) == ft.generate(byte_model, "the", **options)


def test_a_character_is_one_piece(byte_model):
    tokenizer = byte_model.tokenizer
    ids = np.array(tokenizer("é🙂 the")["input_ids"])
    assert len(ids) > 5
    rows = [ids[: i + 1] for i in range(len(ids))]
    assert list(_pieces(rows, tokenizer)) == ["é", "🙂", " the"]
    # A character that stays incomplete comes at the end, as in the decoded text.
    pieces = list(_pieces(rows[:3], tokenizer))
    assert "".join(pieces) == tokenizer.decode(ids[:3]) and pieces[0] == "é"


def test_tokens_of_single_bytes_wait_for_the_next_token():
    tokenizer = sentencepiece_tokenizer()
    ids = np.array(tokenizer("a é stop", add_special_tokens=False)["input_ids"])
    rows = [ids[: i + 1] for i in range(len(ids))]
    pieces = list(_pieces(rows, tokenizer))
    assert "".join(pieces) == tokenizer.decode(ids) == "a é stop"
    assert not any("\ufffd" in piece for piece in pieces)


def test_spaces_that_a_tokenizer_removes():
    class Cleaning:
        clean_up_tokenization_spaces = True
        texts = ("do", "do n", "don't", "don't go", "don't go.")

        def decode(self, row, skip_special_tokens):
            return self.texts[len(row) - 1]

        def convert_ids_to_tokens(self, token):
            return "word"

    pieces = list(_pieces([np.arange(i + 1) for i in range(5)], Cleaning()))
    assert "".join(pieces) == "don't go."


@pytest.mark.slow
@pytest.mark.jax
def test_a_stream_need_not_be_read_to_its_end(model):
    stream = ft.stream(model, "a very good", max_new_tokens=5, min_new_tokens=5)
    first = next(stream)
    stream.close()
    whole = ft.generate(model, "a very good", max_new_tokens=5, min_new_tokens=5)
    assert whole.startswith(first) and first != whole


@pytest.mark.parametrize(
    ("prompt", "options", "error", "message"),
    [
        ("a", {"num_beams": 2}, ArgumentError, "stream yields one text .* found num_beams=2"),
        ("a", {"seed": -1}, ArgumentError, "seed must be an integer >= 0"),
        ("a", {"top_p": 2.0}, ArgumentError, "top_p must be a number > 0 and <= 1"),
        ("a", {"batch_size": 2}, ArgumentError, r"stream\(\) has no argument 'batch_size'"),
        (["a"], {}, DataTypeError, "stream continues one text, found list. Use generate"),
        ("", {}, DataError, "Prompt 0 is empty"),
    ],
)
def test_what_is_refused(model, prompt, options, error, message):
    with pytest.raises(error, match=message):
        ft.stream(model, prompt, **options)


@pytest.mark.slow
def test_beams_of_the_checkpoint(tmp_path):
    folder = write_decoder(tmp_path / "gpt2")
    (folder / "generation_config.json").write_text(json.dumps({"num_beams": 3, "max_length": 5}))
    with quiet():
        own = ft.load(folder)
    with pytest.raises(ArgumentError, match="found num_beams=3 .* Give num_beams=1"):
        ft.stream(own, "a very")
    text = "".join(ft.stream(own, "a very", num_beams=1))
    assert text == ft.generate(own, "a very", num_beams=1)


def test_logits_that_are_not_finite(tiny_decoder, tiny_bert):
    with quiet():
        broken = ft.load(tiny_decoder)
        classifier = ft.load(tiny_bert, labels=["bad", "good"])
    variable = broken.get_layer("final_norm").gamma
    variable.assign(np.full(variable.shape, np.nan))
    with pytest.raises(ModelError, match="logits that are not finite while it generated"):
        list(ft.stream(broken, "a", max_new_tokens=3))
    with pytest.raises(ModelError, match="stream needs a model that generates text"):
        ft.stream(classifier, "a")


@pytest.mark.jax
def test_a_source_begins_at_the_first_position(tmp_path):
    """JAX fills rows up to a few lengths, behind a source and not before it."""
    sizes = {"d_model": 16, "max_position_embeddings": 24, "dropout": 0.0}
    for side in ("encoder", "decoder"):
        sizes |= {f"{side}_layers": 1, f"{side}_ffn_dim": 32, f"{side}_attention_heads": 2}
    keras.utils.set_random_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(write_tokenizer(tmp_path))
    with quiet():
        bart = ft.load(
            {"model_type": "bart", "init_std": 0.5, **sizes},
            "text2text-generation",
            tokenizer=tokenizer,
        )
    options = {"max_new_tokens": 8, "min_new_tokens": 8}
    for source in ("a film", "the actor was very good", "not bad and the story was dull"):
        text = ft.generate(bart, source, **options)
        assert "".join(ft.stream(bart, source, **options)) == text
