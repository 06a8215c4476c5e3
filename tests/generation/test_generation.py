"""Generated tokens are PyTorch's, whatever the family and the way of choosing."""

import functools

import keras
import numpy as np
import pytest
from conformance.harness import REFERENCES, Case
from references.generation_options import (
    ENDS,
    NEW_TOKENS,
    OF_ONE_VOCABULARY,
    OPTIONS,
    PADDING,
    WITHOUT_WORDS,
    bad_words,
)

from finetune_tf.families import FAMILIES
from finetune_tf.generation.forward import empty_cache, forward
from finetune_tf.generation.generate import way_of
from finetune_tf.generation.loop import generate_ids, stream_ids
from finetune_tf.generation.search import search_ids
from finetune_tf.generation.settings import GenerationSettings
from finetune_tf.graph.traces import traces_of

TASK_OF = {
    family: task
    for family, row in FAMILIES.items()
    for task in ("text-generation", "text2text-generation")
    if task in (heads := row.heads(row.complete({})))
    if heads[task].backbone is None  # transformers does not generate with prefix language models
}
DECODERS = [family for family, task in TASK_OF.items() if task == "text-generation"]
EVERY_DAY = {
    ("gpt2", "greedy"),
    ("gpt2", "beams"),
    ("gpt2", "every rule"),
    ("llama", "greedy"),
    ("t5", "greedy"),
    ("t5", "beams"),
    ("t5", "beams beside the source"),
}


def cases(names):
    """Families with ways to generate; a few are everyday tests, also on JAX."""
    usual, rare = pytest.mark.jax, pytest.mark.slow
    return [
        pytest.param(family, name, marks=usual if (family, name) in EVERY_DAY else rare)
        for family in TASK_OF
        for name in names
        if family != "marian" or name not in OF_ONE_VOCABULARY  # this Marian has two
    ]


@functools.cache
def model_of(family):
    return Case.stored(f"{family}/{TASK_OF[family]}", TASK_OF[family]).load()


@functools.cache
def expected_of(family):
    """Prompts, and the tokens that PyTorch generates for them."""
    with np.load(REFERENCES / family / TASK_OF[family] / "generation.npz") as arrays:
        return dict(arrays)


def way_with(model, options):
    """How tokens are generated for options in transformers' words."""
    ids = {"pad_token_id": PADDING, "decoder_start_token_id": 5}
    settings = GenerationSettings(eos_token_id=ENDS, **ids).with_values(options)
    return way_of(model, settings, has_scores=True)


def found_by(model, ids, mask, options, new=NEW_TOKENS):
    """New tokens (prompts · returned, new) and their scores for options in transformers' words."""
    way = way_with(model, options)
    if options.get("num_beams", 1) == 1:
        found, scores, _ = generate_ids(model, ids, mask, new, way, seed=(0, 0))
    else:
        found, scores, _ = search_ids(model, ids, mask, new, way)
    found = np.asarray(found).reshape(-1, np.shape(found)[-1])
    rows = np.full((len(found), new), PADDING, "int32")
    rows[:, : found.shape[1]] = found
    return rows, np.reshape(scores, -1)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "name"), cases([*OPTIONS, *WITHOUT_WORDS]))
def test_tokens_and_scores_are_pytorchs(family, name):
    model, expected = model_of(family), expected_of(family)
    if name in WITHOUT_WORDS:
        source, options = WITHOUT_WORDS[name]
        options = options | {"bad_words_ids": bad_words(expected[source])}
    else:
        options = OPTIONS[name]
    tokens, scores = found_by(model, expected["ids"], expected["mask"], options)
    np.testing.assert_array_equal(tokens, expected[name])
    np.testing.assert_allclose(scores, expected[f"{name} scores"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "name"),
    cases(
        [
            "greedy",
            "length",
            "forced",
            "every rule",
            "beams",
            "penalty",
            "no repeats",
            *OF_ONE_VOCABULARY,
        ]
    ),
)
def test_a_prompt_alone_gives_what_it_gives_among_others(family, name):
    model, expected = model_of(family), expected_of(family)
    ids, mask = expected["ids"], expected["mask"]
    returned = OPTIONS[name].get("num_return_sequences", 1)
    for row in range(len(ids)):
        is_real = mask[row] == 1
        prompt = ids[row : row + 1, is_real]
        alone, _ = found_by(model, prompt, np.ones_like(prompt), OPTIONS[name])
        together = expected[name][row * returned : (row + 1) * returned]
        np.testing.assert_array_equal(alone, together)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "name"), cases(["greedy", "every rule"]))
def test_tokens_one_by_one_are_those_of_the_loop(family, name):
    model, expected = model_of(family), expected_of(family)
    ids, mask = expected["ids"], expected["mask"]
    way = way_with(model, OPTIONS[name] | {"num_beams": 1, "do_sample": True, "top_p": 0.9})
    whole, _, _ = generate_ids(model, ids, mask, NEW_TOKENS, way, seed=(3, 0))
    for step, progress in enumerate(stream_ids(model, ids, mask, NEW_TOKENS, way, seed=(3, 0))):
        assert int(progress.step) == step + 1
        given = ids.shape[1] if way.first is None else 1
        found = np.asarray(progress.ids)[:, given:]
        np.testing.assert_array_equal(found, np.asarray(whole)[:, : step + 1])
    assert step + 1 == np.shape(whole)[1]


@pytest.mark.parametrize("family", DECODERS)
def test_cached_tokens_give_the_logits_of_a_whole_pass(family):
    model, expected = model_of(family), expected_of(family)
    ids = np.tile(expected["ids"][:1], (2, 1))
    ids[1] = np.roll(ids[1], 1)
    whole = np.asarray(model({"input_ids": ids}))
    logits, cache = forward(model, ids[:, :3], np.ones((2, 3), "int32"), empty_cache(model, 2))
    np.testing.assert_allclose(np.asarray(logits), whole[:, 2], rtol=1e-5, atol=1e-5)
    for place in range(3, ids.shape[1]):
        mask = np.ones((2, place + 1), "int32")
        logits, cache = forward(model, ids[:, place : place + 1], mask, cache)
        np.testing.assert_allclose(np.asarray(logits), whole[:, place], rtol=1e-5, atol=1e-5)
    keys, _ = cache[0]
    assert keys.shape[2] == ids.shape[1]


@pytest.mark.slow
def test_one_trace_serves_prompts_of_any_length():
    model = model_of("llama")
    traces_of(model).clear()
    for length in (2, 5):
        ids = np.full((length, length), 9, "int32")
        tokens, _ = found_by(model, ids, np.ones_like(ids), {}, new=length)
        assert tokens.shape == (length, length)
    assert [key[0] for key in traces_of(model) if isinstance(key, tuple)] == ["generate"]


@pytest.mark.slow
def test_an_encoder_decoder_is_saved_after_it_has_generated(tmp_path):
    model = model_of("t5")
    expected = model.generate([[9, 10, 11]], max_new_tokens=3)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.generate([[9, 10, 11]], max_new_tokens=3), expected)
