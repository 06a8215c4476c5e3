"""Where texts end: tokens, and stop strings however tokens split them."""

import json

import numpy as np
import pytest
import tensorflow as tf
from helpers_decoders import (
    byte_tokenizer,
    sentencepiece_tokenizer,
    word_tokenizer,
    write_decoder,
)

import finetune_tf as ft
from finetune_tf.generation.ends import Ends, compiled
from finetune_tf.messages import quiet


def pieces_tokenizer():
    """A tokenizer with word pieces, as BERT's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [
        "<pad>",
        "<end>",
        "<unk>",
        "st",
        "##op",
        "stop",
        "##opera",
        "las",
        "##t",
        "abcdef",
        ".",
    ]
    pieces = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    pieces.pre_tokenizer = pre_tokenizers.Whitespace()
    pieces.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(tokenizer_object=pieces, unk_token="<unk>", eos_token="<end>")


TOKENIZERS = {
    "bytes": (byte_tokenizer, ("ope", "é", "\n\n", " the", "the t", "hé")),
    "words": (word_tokenizer, ("good film", "y g", "d")),
    "pieces": (pieces_tokenizer, ("stop", "op", "t.", "p st", "stst")),
    "sentencepiece": (sentencepiece_tokenizer, ("stop", "é", "a\n", "opé", "a a")),
}


def random_row(random, tokens, tokenizer, count):
    """Random tokens; those of single bytes only as the two of one character.

    If bytes are no character, the decoder shows none of those around them.
    """
    two = [token for token in map(tokenizer.convert_tokens_to_ids, ("<0xC3>", "<0xA9>")) if token]
    drawn = random.choice([token for token in tokens if token not in two[1:]], count).tolist()
    return np.concatenate([two if token in two else [token] for token in drawn]).astype("int32")


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_text_ends_with_the_token_that_completes_a_stop_string(name):
    """Every way to split a text, token by token, compared with the decoded texts."""
    make, strings = TOKENIZERS[name]
    tokenizer, random = make(), np.random.default_rng(0)
    size = len(tokenizer)
    frequent = tokenizer(" ".join(strings), add_special_tokens=False)["input_ids"]
    start, found = frequent[:1], 0
    for count in (1, 2, len(strings)):
        ends = Ends(stops=compiled(strings[:count], tokenizer, size))
        for _ in range(60):
            row = random_row(random, frequent, tokenizer, 12)
            text = [tokenizer.decode([*start, *row[:i]]) for i in range(len(row) + 1)]
            first = tokenizer.decode(start)
            # What stands in the prompt alone does not count.
            expected = next(
                (
                    i
                    for i in range(1, len(row) + 1)
                    if any(text[i].count(s) > first.count(s) for s in strings[:count])
                ),
                len(row),
            )
            assert len(ends.cut(np.array(start), row)) == expected, (start, row)
            found += expected < len(row)
    assert found > 30


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_graph_finds_the_same_ends(name):
    make, strings = TOKENIZERS[name]
    tokenizer, random = make(), np.random.default_rng(1)
    ends = Ends((1,), compiled(strings, tokenizer, len(tokenizer)))
    frequent = tokenizer(" ".join(strings), add_special_tokens=False)["input_ids"]
    prompts = random.choice(frequent, (40, 5)).astype("int32")
    mask = (np.arange(5) >= random.integers(0, 5, (40, 1))).astype("int32")
    rows = random.choice([*frequent, 1], (40, 8)).astype("int32")
    states, lengths = ends.states(prompts, mask), np.full(40, 8)
    for step in range(8):
        states, is_end = ends.after(states, tf.constant(rows[:, step]))
        lengths = np.where(is_end & (lengths == 8), step + (rows[:, step] != 1), lengths)
    expected = [
        len(ends.cut(prompt[real == 1], row))
        for prompt, real, row in zip(prompts, mask, rows, strict=True)
    ]
    assert lengths.tolist() == expected
    assert min(expected) < 8


@pytest.mark.slow
@pytest.mark.parametrize("name", TOKENIZERS)
def test_stop_strings_are_those_of_transformers(name):
    torch = pytest.importorskip("torch")
    from transformers import StopStringCriteria

    if name == "words":
        pytest.skip("transformers needs a tokenizer that knows the letters from a to f")
    make, strings = TOKENIZERS[name]
    tokenizer, random = make(), np.random.default_rng(2)
    frequent = tokenizer(" ".join(strings), add_special_tokens=False)["input_ids"]
    for count in range(1, len(strings) + 1):
        criteria = StopStringCriteria(tokenizer, list(strings[:count]))
        ends = Ends(stops=compiled(strings[:count], tokenizer, len(tokenizer)))
        ids = random.choice(frequent, (300, 6)).astype("int32")
        expected = criteria(torch.tensor(ids).long(), None).numpy()
        states = ends.states(ids[:, :-1], np.ones_like(ids[:, :-1]))
        _, found = ends.after(states, tf.constant(ids[:, -1]))
        np.testing.assert_array_equal(found, expected)
        assert expected.any() and not expected.all()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A byte-level model that generates letters, digits and spaces."""
    folder, tokenizer = tmp_path_factory.mktemp("bytes"), byte_tokenizer()
    others = [
        token
        for token in range(2, len(tokenizer))
        if not tokenizer.decode(token).replace(" ", "").isalnum()
        or not tokenizer.decode(token).isascii()
    ]
    write_decoder(folder, 0, tokenizer, n_positions=64)
    (folder / "generation_config.json").write_text(json.dumps({"suppress_tokens": others}))
    with quiet():
        return ft.load(folder)


PROMPTS = ["the", "a the other", "I"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"do_sample": True, "seed": 5}, {"no_repeat_ngram_size": 2}, {"num_beams": 3}]
)
@pytest.mark.parametrize("place", [2, 7])
def test_generated_texts_end_with_a_stop_string(model, options, place):
    """The stop string is one that the model generates without it."""
    options = {"max_new_tokens": 20, "min_new_tokens": 20, "return_ids": True, **options}
    free = ft.generate(model, PROMPTS, **options)
    string = model.tokenizer.decode(free[1][place : place + 2])
    assert string.isascii() and len(string) >= 2
    found = ft.generate(model, PROMPTS, stop_strings=string, **options)
    ends = Ends((1,), compiled((string,), model.tokenizer, model.config["vocab_size"]))
    ids = [np.array(model.tokenizer(prompt)["input_ids"]) for prompt in PROMPTS]
    # A beam search that ends earlier may find other texts, but they end as early as possible.
    texts = found if "num_beams" in options else free
    for prompt, row, text in zip(ids, found, texts, strict=True):
        np.testing.assert_array_equal(row, ends.cut(prompt, text))
    assert "num_beams" in options or string in model.tokenizer.decode(found[1])
    assert min(map(len, found)) < 20
    options = options | {"return_ids": False}
    assert ft.generate(model, PROMPTS, stop_strings=[string], **options) == [
        model.tokenizer.decode(row) for row in found
    ]


@pytest.mark.slow
def test_a_stop_string_may_begin_in_the_prompt(model):
    options = {"max_new_tokens": 5, "min_new_tokens": 5, "return_ids": True}
    free = ft.generate(model, "the", **options)
    first = model.tokenizer.decode(free[:1])
    found = ft.generate(model, "the", stop_strings=[f"e{first}"], **options)
    assert found.tolist() == free[:1].tolist()
    assert ft.generate(model, "the", stop_strings=["the"], **options).size == 5


@pytest.mark.slow
def test_stop_strings_of_the_checkpoint(tmp_path):
    folder = write_decoder(tmp_path / "gpt2")
    with quiet():
        own = ft.load(folder)
    words = ft.generate(own, "a very", max_new_tokens=4).split()
    (folder / "generation_config.json").write_text(json.dumps({"stop_strings": words[0]}))
    with quiet():
        own = ft.load(folder)
    assert ft.generate(own, "a very", max_new_tokens=4) == words[0]
