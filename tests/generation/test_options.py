"""Rules, scores and stop strings as options of a call, and those of old checkpoints."""

import json

import numpy as np
import pytest
from helpers_checkpoints import TESTS, copy_checkpoint
from helpers_decoders import write_decoder

import finetune_tf as ft
from finetune_tf.errors import ArgumentError, DataError
from finetune_tf.messages import quiet

PROMPTS = ["a very good", "the actor", "not"]


@pytest.fixture(scope="module")
def model(tiny_decoder):
    with quiet():
        return ft.load(tiny_decoder)


def log_probs(model, prompt, row):
    """The log-probability of each token of a row after a prompt, by one forward pass."""
    ids = [*model.tokenizer(prompt)["input_ids"], *row]
    logits = np.asarray(model({"input_ids": np.array([ids])}))[0].astype("float64")
    logits -= logits.max(-1, keepdims=True)
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    places = np.arange(len(ids) - len(row), len(ids))
    return logs[places - 1, ids[-len(row) :]]


@pytest.mark.slow
def test_scores_are_sums_of_log_probabilities(model):
    options = {"max_new_tokens": 6, "return_ids": True}
    for more in ({}, {"do_sample": True, "top_k": 0, "num_return_sequences": 3}):
        found, scores = ft.generate(model, PROMPTS, return_scores=True, **options, **more)
        assert np.shape(scores) == ((3, 3) if more else (3,))
        several = found if more else [[row] for row in found]
        for prompt, rows, sums in zip(PROMPTS, several, np.reshape(scores, (3, -1)), strict=True):
            for row, score in zip(rows, sums, strict=True):
                ended = [*row, model.tokenizer.eos_token_id] if len(row) < 6 else row
                expected = log_probs(model, prompt, ended).sum()
                np.testing.assert_allclose(score, expected, rtol=1e-4)


@pytest.mark.slow
def test_scores_of_beams_are_divided_by_a_power_of_the_length(model):
    options = {"max_new_tokens": 6, "num_beams": 3, "length_penalty": 0.5, "return_ids": True}
    row, score = ft.generate(model, "the actor", return_scores=True, **options)
    row = [*row, model.tokenizer.eos_token_id] if len(row) < 6 else row
    expected = log_probs(model, "the actor", row).sum() / len(row) ** 0.5
    np.testing.assert_allclose(score, expected, rtol=1e-4)
    _, scores = ft.generate(
        model, ["the", "a"], return_scores=True, num_return_sequences=2, **options
    )
    assert np.shape(scores) == (2, 2)
    assert all(best >= second for best, second in scores)


@pytest.mark.slow
def test_scores_of_ids(model):
    rows, scores = model.generate([[4, 5], [6]], 3, return_scores=True)
    assert len(rows) == len(scores) == 2 and max(scores) < 0
    np.testing.assert_array_equal(rows[0], model.generate([[4, 5], [6]], 3)[0])


@pytest.mark.slow
def test_the_score_of_what_is_forced_is_certain(model):
    (row,), (score,) = model.generate(
        [[4]], 2, forced_bos_token_id=7, forced_eos_token_id=1, return_scores=True
    )
    assert row.tolist() == [7] and score == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"num_beams": 3}])
def test_bad_words_do_not_occur(model, options):
    options = {"max_new_tokens": 6, "min_new_tokens": 6, **options}
    text = ft.generate(model, "a very", **options)
    words = text.split()
    bad = [words[0], " ".join(words[2:4])]
    found = ft.generate(model, "a very", bad_words=bad, **options)
    assert found and found != text
    assert words[0] not in found.split() and bad[1] not in found


@pytest.mark.slow
def test_bad_words_add_to_those_of_the_checkpoint(tmp_path):
    folder = write_decoder(tmp_path / "gpt2")
    options = {"max_new_tokens": 6, "min_new_tokens": 6}
    with quiet():
        first = ft.generate(ft.load(folder), "a very", **options).split()[0]
    path = folder / "generation_config.json"
    with quiet():
        ids = ft.load(folder).tokenizer(first)["input_ids"]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"bad_words_ids": [ids]}))
    with quiet():
        own = ft.load(folder)
    second = ft.generate(own, "a very", **options).split()[0]
    assert second != first
    assert not {first, second} & set(
        ft.generate(own, "a very", bad_words=[second], **options).split()
    )


@pytest.mark.slow
def test_min_length_counts_the_prompt_and_min_new_tokens_does_not(tmp_path):
    folder = write_decoder(tmp_path / "gpt2")
    with quiet():
        own = ft.load(folder)
    # The end is the most probable token everywhere.
    table = own.get_layer("embeddings").word.embeddings
    table.assign(np.asarray(table) * 0 + np.eye(20, 12, dtype="float32"))
    own.get_layer("final_norm").beta.assign(np.eye(1, 12, 1, dtype="float32")[0] * 1e3)
    rows = [[4, 5, 6], [4]]
    lengths = [len(row) for row in own.generate(rows, 8, min_length=5)]
    assert lengths == [2, 4]
    assert [len(row) for row in own.generate(rows, 8, min_new_tokens=5)] == [5, 5]
    assert [len(row) for row in own.generate(rows, 8, min_new_tokens=0, min_length=5)] == [0, 0]


@pytest.mark.slow
def test_keys_of_an_old_config_count_and_those_for_tasks_do_not(tmp_path):
    keys = {
        "num_beams": 3,
        "max_length": 9,
        "min_length": 6,
        "no_repeat_ngram_size": 2,
        "length_penalty": 2.0,
        "early_stopping": True,
        "forced_eos_token_id": 1,
    }
    others = {"task_specific_params": {"summarization": {"num_beams": 7, "guidance_scale": 3.0}}}
    folder = write_decoder(tmp_path / "gpt2", **keys, **others)
    (folder / "generation_config.json").unlink()
    with quiet():
        old = ft.load(folder)
    row = old.tokenizer("a very")["input_ids"]
    options = {key: value for key, value in keys.items() if key != "max_length"}
    with quiet():
        new = ft.load(write_decoder(tmp_path / "new"))
    np.testing.assert_array_equal(old.generate([row])[0], new.generate([row], 7, **options)[0])


@pytest.mark.slow
def test_all_keys_are_saved_unchanged(tmp_path):
    folder = write_decoder(tmp_path / "gpt2")
    settings = {
        "bad_words_ids": [[4], [5, 6]],
        "begin_suppress_tokens": [7],
        "decoder_start_token_id": 0,
        "eos_token_id": 1,
        "forced_bos_token_id": 8,
        "forced_eos_token_id": [1],
        "min_length": 2,
        "renormalize_logits": True,
        "stop_strings": ["good"],
        "suppress_tokens": [9],
        "transformers_version": "5.24.0",
        "typical_p": 0.9,
    }
    (folder / "generation_config.json").write_text(json.dumps(settings))
    with quiet():
        own = ft.load(folder)
        ft.generate(own, PROMPTS, max_new_tokens=3)
        own.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "generation_config.json").read_text()) == settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stop_strings": ""}, "stop_strings has to be a text that is not empty, a list of"),
        ({"stop_strings": ["a", ""]}, "stop_strings has to be a text that is not empty"),
        ({"stop_strings": [3]}, "stop_strings has to be a text that is not empty"),
        ({"bad_words": "good"}, "bad_words is a list of texts, found 'good'"),
        ({"bad_words": [3]}, r"bad_words is a list of texts, found \[3\]"),
        ({"bad_words": 3}, "bad_words"),
        ({"bad_words": ["good", " "]}, "bad_words has ' ', for which the tokenizer has no tokens"),
        ({"bad_words": ["zebra"]}, "bad_words has 'zebra', for which the tokenizer has no tokens"),
        ({"typical_p": 0}, "typical_p must be a number > 0 and <= 1"),
        ({"epsilon_cutoff": 1.0}, "epsilon_cutoff must be a number >= 0 and < 1"),
        ({"typical_p": 0.5}, "typical_p has no effect without do_sample=True"),
        ({"eta_cutoff": 0.5}, "eta_cutoff has no effect without do_sample=True"),
        ({"max_tokens": 5}, r"generate\(\) has no argument 'max_tokens'"),
    ],
)
def test_what_is_refused(model, options, message):
    with pytest.raises(ArgumentError, match=message):
        ft.generate(model, "a", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"forced_bos_token_id": 20}, "forced_bos_token_id has the id 20, but the model has 20"),
        ({"forced_eos_token_id": [1, 99]}, "forced_eos_token_id has the id 99, but the model has"),
        ({"bad_words_ids": [[3, 77]]}, "bad_words_ids has the id 77, but the model has 20 tokens"),
        ({"bad_words_ids": [[]]}, "bad_words_ids has to be a list with a list of token ids for"),
        ({"suppress_tokens": [-1]}, "suppress_tokens has to be a list of token ids, or None"),
        ({"min_length": -1}, "min_length must be an integer >= 0"),
        (
            {"forced_eos_token_id": 1, "suppress_tokens": [1, 2]},
            "forced_eos_token_id forces token 1, which suppress_tokens forbids",
        ),
        ({"eos_token_id": 4}, r"generate\(\) has no argument 'eos_token_id'"),
    ],
)
def test_ids_that_are_refused(model, options, message):
    with pytest.raises(ArgumentError, match=message):
        model.generate([[4]], **options)


def test_a_prompt_that_leaves_no_room(model):
    with pytest.raises(
        DataError, match="max_new_tokens=24 need 25 positions, but the model has 24"
    ):
        model.generate([[4]], 24)


@pytest.mark.slow
def test_settings_of_a_config_are_saved_where_pytorch_reads_them(tmp_path):
    """A model without generation_config.json gets one with what its config says."""
    source = TESTS / "references" / "bart" / "text2text-generation"
    folder = copy_checkpoint(source, tmp_path / "old", num_beams=3, forced_eos_token_id=2)
    with quiet():
        model = ft.load(folder, "text2text-generation")
        saved = model.save_pretrained(tmp_path / "saved")
    settings = json.loads((saved / "generation_config.json").read_text())
    wanted = {"num_beams": 3, "decoder_start_token_id": 5, "forced_eos_token_id": 2}
    assert wanted.items() <= settings.items()
    with quiet():
        again = ft.load(saved, "text2text-generation")
    sources = [[9, 10, 11], [12]]
    for found, expected in zip(again.generate(sources), model.generate(sources), strict=True):
        np.testing.assert_array_equal(found, expected)
