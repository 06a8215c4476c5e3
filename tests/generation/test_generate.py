"""`ft.generate`, `model.generate` and `ft.predict` on a language model, and what they refuse."""

import json

import numpy as np
import pytest
from helpers_decoders import POSITIONS, write_decoder
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import finetune_tf as ft
from finetune_tf.errors import ArgumentError, CheckpointError, DataError, DataTypeError, ModelError
from finetune_tf.messages import quiet


@pytest.fixture(scope="module")
def model(tiny_decoder):
    with quiet():
        return ft.load(tiny_decoder)


PROMPTS = ["a very good", "the actor", "not"]


@pytest.mark.slow
def test_texts_and_ids(model):
    texts = ft.generate(model, PROMPTS, max_new_tokens=5)
    ids = ft.generate(model, PROMPTS, max_new_tokens=5, return_ids=True)
    assert [len(row) <= 5 for row in ids] == [True] * 3
    assert texts == [model.tokenizer.decode(row) for row in ids]
    assert ft.generate(model, PROMPTS[0], max_new_tokens=5) == texts[0]
    rows = model.tokenizer(PROMPTS)["input_ids"]
    for found, expected in zip(model.generate(rows, max_new_tokens=5), ids, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_batches_do_not_change_texts(model):
    every = [ft.generate(model, PROMPTS, max_new_tokens=4, batch_size=n) for n in (1, 2, 8)]
    assert every[0] == every[1] == every[2]


def test_predict_continues_prompts_as_the_checkpoint_says(model):
    assert ft.predict(model, PROMPTS) == ft.generate(model, PROMPTS)
    examples = ft.data.from_arrays(prompt=PROMPTS, completion=["film"] * 3)
    assert ft.predict(model, examples) == ft.generate(model, PROMPTS)
    assert ft.predict(model, "not") == ft.generate(model, "not")


@pytest.mark.slow
def test_samples_are_repeatable_and_follow_the_seed(model):
    options = {"max_new_tokens": 8, "do_sample": True, "num_return_sequences": 4}
    first = ft.generate(model, "a", seed=1, **options)
    assert first == ft.generate(model, "a", seed=1, **options)
    assert first != ft.generate(model, "a", seed=2, **options)
    assert len(first) == 4 and len(set(first)) > 1


@pytest.mark.slow
def test_the_settings_of_the_checkpoint_count_and_are_saved(tiny_decoder, tmp_path):
    folder = write_decoder(tmp_path / "gpt2")
    settings = {"num_beams": 3, "max_new_tokens": 4, "eos_token_id": [1, 5], "pad_token_id": 0}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    with quiet():
        own = ft.load(folder)
        saved = ft.load(own.save_pretrained(tmp_path / "saved"))
    wanted = ft.generate(own, PROMPTS, max_new_tokens=4, num_beams=3)
    assert ft.generate(own, PROMPTS) == ft.generate(saved, PROMPTS) == wanted
    assert json.loads((tmp_path / "saved" / "generation_config.json").read_text()) == settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_beams": 0}, "'num_beams' of generation_config.json has the value 0, but has to be"),
        ({"eos_token_id": "</s>"}, "'eos_token_id' .* has to be a token id, a list of them, or"),
        ({"guidance_scale": 1.5}, "'guidance_scale' .* which is not supported here"),
        (
            {"diversity_penalty": 1.5},
            "'diversity_penalty' .* which is not supported here. Take the key out",
        ),
        ({"encoder_repetition_penalty": 0}, "'encoder_repetition_penalty' .* a number > 0"),
        ({"bad_words_ids": [[]]}, "'bad_words_ids' .* has to be a list with a list of token ids"),
        ({"bad_words_ids": [3]}, "'bad_words_ids' .* has to be a list with a list of token ids"),
        ({"forced_bos_token_id": [3]}, "'forced_bos_token_id' .* has to be a token id, or null"),
        ({"suppress_tokens": 3}, "'suppress_tokens' .* has to be a list of token ids, or null"),
        ({"stop_strings": [""]}, "'stop_strings' .* has to be a text that is not empty, a list of"),
        ({"typical_p": 0}, "'typical_p' .* has to be a number > 0 and <= 1"),
        ({"renormalize_logits": "no"}, "'renormalize_logits' .* has to be true or false"),
    ],
)
def test_settings_that_cannot_be_followed(settings, message, tmp_path):
    folder = write_decoder(tmp_path / "gpt2")
    (folder / "generation_config.json").write_text(json.dumps(settings))
    with quiet():
        own = ft.load(folder)
    with pytest.raises(CheckpointError, match=message):
        ft.generate(own, "a")


@pytest.mark.parametrize(
    ("prompts", "options", "error", "message"),
    [
        ("", {}, DataError, "Prompt 0 is empty, so there is nothing to continue"),
        (["a", 3], {}, DataTypeError, "Prompt 1 is no text but int: 3"),
        (7, {}, DataTypeError, "Prompts are a text or a list of texts, found int"),
        ("a " * POSITIONS, {}, DataError, f"has {POSITIONS} tokens, but the model has positions"),
        ("a", {"max_new_tokens": 24}, DataError, "max_new_tokens=24 need 25 positions, but .* 24."),
        ("a", {"max_new_tokens": 0}, ArgumentError, "max_new_tokens must be an integer >= 1"),
        ("a", {"num_beams": 0}, ArgumentError, "num_beams must be an integer >= 1"),
        ("a", {"top_p": 0}, ArgumentError, "top_p must be a number > 0 and <= 1"),
        ("a", {"top_p": 1.5}, ArgumentError, "top_p must be a number > 0 and <= 1"),
        ("a", {"temperature": 0}, ArgumentError, "temperature must be a number > 0"),
        ("a", {"num_return_sequences": 2}, ArgumentError, "need as many beams, or do_sample=True"),
        (
            "a",
            {"num_beams": 2, "do_sample": True, "num_return_sequences": 3},
            ArgumentError,
            "need as many beams, or do_sample=True with num_beams=1; found num_beams=2",
        ),
        ("a", {"early_stopping": "soon"}, ArgumentError, "early_stopping is True, False or"),
        ("a", {"max_length": 20}, ArgumentError, "generate\\(\\) has no argument 'max_length'"),
    ],
)
def test_what_is_refused(model, prompts, options, error, message):
    with pytest.raises(error, match=message):
        ft.generate(model, prompts, **options)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([], "Prompt 0 has to be a list of token ids with at least one, found"),
        ([1.5], "Prompt 0 has to be a list of token ids"),
        ([99], "Prompt 0 has the token id 99, but the model has 20 tokens"),
        ([-1], "Prompt 0 has the token id -1"),
    ],
)
def test_ids_that_are_refused(model, row, message):
    with pytest.raises(DataError, match=message):
        model.generate([row])


def test_an_empty_source(tiny_t5):
    with quiet():
        own = ft.load(tiny_t5, "text2text-generation")
    with pytest.raises(DataError, match="Source 1 is empty, so that a target would be made up"):
        ft.generate(own, ["a film", " "])


@pytest.mark.slow
def test_tokenizers_without_end_and_padding(tiny_decoder, capsys):
    with quiet():
        own = ft.load(tiny_decoder)
        expected = own.generate([own.tokenizer(text)["input_ids"] for text in PROMPTS], 6)
    own.tokenizer.eos_token = own.tokenizer.pad_token = None
    for key in ("eos_token_id", "pad_token_id"):
        own.config.pop(key, None)
        own.info.generation.pop(key, None)
    pairs = ft.data.from_arrays(prompt=["a", "the"], completion=["film", "actor"])
    assert [len(row) for row in pairs.encoded(own).inputs["input_ids"].rows] == [2, 2]
    assert "the tokenizer has no token that ends a text" in capsys.readouterr().out
    found = ft.generate(own, PROMPTS, max_new_tokens=6, return_ids=True)
    assert [len(row) for row in found] == [6, 6, 6]  # nothing ends them
    for row, begun in zip(found, expected, strict=True):
        np.testing.assert_array_equal(row[: len(begun)], begun)
    (ids, _) = next(iter(pairs.batches(own, 2)))
    assert np.asarray(ids["attention_mask"]).sum() == 4


def test_a_decoder_has_no_masked_words(tiny_decoder):
    with pytest.raises(CheckpointError, match="gpt2 models have no head for the task 'fill-mask'"):
        ft.load(tiny_decoder, "fill-mask")


def test_a_model_of_another_task(tiny_bert):
    with quiet():
        classifier = ft.load(tiny_bert, labels=["bad", "good"])
    with pytest.raises(ModelError, match="generate needs a model that generates text, found one"):
        ft.generate(classifier, "a")
    with pytest.raises(ModelError, match="is no causal language model"):
        classifier.generate([[1, 2]])


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"num_beams": 2}])
def test_logits_that_are_not_finite(tiny_decoder, options):
    with quiet():
        broken = ft.load(tiny_decoder)
    variable = broken.get_layer("final_norm").gamma
    variable.assign(np.full(variable.shape, np.nan))
    with pytest.raises(ModelError, match="logits that are not finite while it generated"):
        ft.generate(broken, "a", max_new_tokens=3, **options)


def test_fewer_tokens_where_the_positions_end(model, capsys):
    text = ft.generate(model, "a " * (POSITIONS - 3), return_ids=True, min_new_tokens=3)
    assert len(text) == 3
    assert "generate: at most 3 tokens, since the model has 24 positions" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.5}, "temperature has no effect without do_sample=True"),
        ({"top_k": 5}, "top_k has no effect without do_sample=True"),
        ({"length_penalty": 2.0}, "length_penalty has no effect without beams"),
        ({"early_stopping": True}, "early_stopping has no effect without beams"),
        ({"do_sample": "False"}, "do_sample is True or False, found 'False'"),
        (
            {"early_stopping": 1, "num_beams": 2},
            "early_stopping is True, False or 'never', found 1",
        ),
        ({"min_new_tokens": 5, "max_new_tokens": 3}, "min_new_tokens=5 is more than max_new_to"),
    ],
)
def test_options_that_would_do_nothing(model, options, message):
    with pytest.raises(ArgumentError, match=message):
        ft.generate(model, "a", **options)


def test_unknown_options_of_the_method(model):
    with pytest.raises(ArgumentError, match=r"generate\(\) has no argument 'temprature'. Did you"):
        model.generate([[4]], temprature=2.0)
    with pytest.raises(DataError, match="Prompt 0 has to be a list of token ids"):
        model.generate([[[3], [4, 5]]])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("eos_token_id", 5000),
        ("pad_token_id", 5000),
        ("decoder_start_token_id", 5000),
        ("forced_bos_token_id", 5000),
        ("forced_eos_token_id", [1, 5000]),
        ("suppress_tokens", [5000]),
        ("begin_suppress_tokens", [3, 5000]),
        ("bad_words_ids", [[3], [4, 5000]]),
    ],
)
def test_ids_beyond_the_vocabulary(key, value, tmp_path):
    folder = write_decoder(tmp_path / "gpt2")
    (folder / "generation_config.json").write_text(json.dumps({key: value}))
    with quiet():
        own = ft.load(folder)
    with pytest.raises(CheckpointError, match=f"'{key}' .* has the id 5000, but the model has 20"):
        ft.generate(own, "a")


@pytest.mark.slow
def test_settings_of_an_older_config_count_without_another_file(tmp_path):
    folder = write_decoder(tmp_path / "gpt2", num_beams=3, max_length=6)
    (folder / "generation_config.json").unlink()
    with quiet():
        own = ft.load(folder)
    expected = ft.generate(own, "a very", max_new_tokens=4, num_beams=3)
    assert ft.generate(own, "a very") == expected


def test_a_prompt_has_its_own_length_among_longer_ones(tmp_path):
    """`max_length` counts the prompt, and not the longest prompt of the call."""
    folder = write_decoder(tmp_path / "gpt2")
    settings = {"max_length": 10, "min_length": 10, "eos_token_id": 1}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    with quiet():
        own = ft.load(folder)
    prompts = ["a", "not", "the film was very good", "the actor was very bad and", "long"]
    alone = [ft.generate(own, prompt, return_ids=True) for prompt in prompts]
    assert [len(row) for row in alone] == [9, 9, 5, 4, 9]
    for options in ({"batch_size": 2}, {"num_beams": 2}):
        found, scores = ft.generate(own, prompts, return_ids=True, return_scores=True, **options)
        for prompt, row, score in zip(prompts, found, scores, strict=True):
            options |= {"return_ids": True, "return_scores": True}
            expected, expected_score = ft.generate(own, prompt, **options)
            np.testing.assert_array_equal(row, expected)
            assert score == pytest.approx(expected_score, rel=1e-5)


@pytest.mark.slow
def test_texts_end_with_the_token_of_the_tokenizer(tmp_path):
    folder = write_decoder(tmp_path / "gpt2", eos_token_id=None)
    (folder / "generation_config.json").unlink()
    with quiet():
        own = ft.load(folder)
    bias = np.zeros(20, "float32")
    bias[1] = 1e3  # the end is the most probable token
    table = own.get_layer("embeddings").word.embeddings
    table.assign(np.asarray(table) * 0 + np.eye(20, 12, dtype="float32"))
    own.get_layer("final_norm").beta.assign(bias[:12])
    assert ft.generate(own, "a very", return_ids=True).size == 0


@pytest.mark.slow
def test_texts_are_those_of_the_tokenizer_of_the_targets(tiny_t5):
    with quiet():
        own = ft.load(tiny_t5, "text2text-generation")
    words = {word.upper(): i for word, i in own.tokenizer.get_vocab().items()}
    capital = Tokenizer(models.WordLevel(words, "<UNK>"))
    capital.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    own.target_tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=capital, pad_token="<PAD>", eos_token="</S>", unk_token="<UNK>"
    )
    options = {"max_new_tokens": 4, "min_new_tokens": 4}
    (row,) = ft.generate(own, ["a film"], return_ids=True, **options)
    text = ft.generate(own, "a film", **options)
    assert text == own.target_tokenizer.decode(row, skip_special_tokens=True)
    assert text and text == text.upper()
    assert "".join(ft.stream(own, "a film", **options)) == text
    word = text.split()[0]
    assert word not in ft.generate(own, "a film", bad_words=[word], **options).split()


@pytest.mark.slow
def test_rules_on_sources_need_one_vocabulary(tiny_t5):
    with quiet():
        own = ft.load(tiny_t5, "text2text-generation")
    ids = [[token for token in range(own.config["vocab_size"]) if token not in (18, 20)]]
    assert not {18, 20} >= set(own.generate(ids, 4, min_new_tokens=4)[0].tolist())
    found = own.generate(ids, 4, min_new_tokens=4, encoder_no_repeat_ngram_size=1)[0]
    assert len(found) == 4 and {18, 20} >= set(found.tolist())
    own.target_tokenizer = ft.load(tiny_t5, "text2text-generation").tokenizer
    with pytest.raises(ArgumentError, match="but .* has a vocabulary for each. Leave them out"):
        own.generate(ids, 8, encoder_repetition_penalty=2.0)
