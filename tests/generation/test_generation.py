"""Generated tokens are PyTorch's, whatever the family and the way of choosing."""

import functools

import keras
import numpy as np
import pytest
from conformance.harness import REFERENCES, Case
from references.generation_options import ENDS, NEW_TOKENS, OPTIONS, PADDING

from finetune_tf.families import FAMILIES
from finetune_tf.generation.beams import Beams
from finetune_tf.generation.forward import empty_cache, forward
from finetune_tf.generation.loop import generate_ids, search_ids
from finetune_tf.generation.sampling import Rules, Sampling, warped
from finetune_tf.graph.traces import traces_of

GENERATION = "text-generation"
DECODERS = [f for f, row in FAMILIES.items() if GENERATION in row.heads(row.complete({}))]


EVERY_DAY = ("greedy", "beams")


def cases(names):
    """Families with ways to generate; the usual ways, and all of one family, are everyday tests."""
    return [
        pytest.param(
            family, name, marks=() if name in EVERY_DAY or family == "gpt2" else pytest.mark.slow
        )
        for family in DECODERS
        for name in names
    ]


@functools.cache
def model_of(family):
    return Case.stored(f"{family}/{GENERATION}", GENERATION).load()


@functools.cache
def expected_of(family):
    """Prompts, and the tokens that PyTorch generates for them."""
    with np.load(REFERENCES / family / GENERATION / "generation.npz") as arrays:
        return dict(arrays)


def tokens_of(model, ids, mask, options, new=NEW_TOKENS):
    """New tokens (prompts · returned, new) for options in transformers' words."""
    rules = Rules(
        options.get("repetition_penalty", 1.0),
        options.get("no_repeat_ngram_size", 0),
        options.get("min_new_tokens", 0),
    )
    if options.get("num_beams", 1) == 1:
        found, _ = generate_ids(
            model, ids, mask, new, Sampling(), rules, ENDS, PADDING, seed=(0, 0)
        )
    else:
        beams = Beams(
            options["num_beams"],
            options.get("length_penalty", 1.0),
            options.get("early_stopping", False),
        )
        returned = options.get("num_return_sequences", 1)
        found, _, _ = search_ids(model, ids, mask, new, beams, rules, ENDS, PADDING, returned)
    found = np.asarray(found).reshape(-1, np.shape(found)[-1])
    rows = np.full((len(found), new), PADDING, "int32")
    rows[:, : found.shape[1]] = found
    return rows


@pytest.mark.parametrize(("family", "name"), cases(OPTIONS))
def test_tokens_are_pytorchs(family, name):
    model, expected = model_of(family), expected_of(family)
    found = tokens_of(model, expected["ids"], expected["mask"], OPTIONS[name])
    np.testing.assert_array_equal(found, expected[name])


@pytest.mark.parametrize(("family", "name"), cases(["greedy", "beams", "penalty", "no repeats"]))
def test_a_prompt_alone_gives_what_it_gives_among_others(family, name):
    model, expected = model_of(family), expected_of(family)
    ids, mask = expected["ids"], expected["mask"]
    returned = OPTIONS[name].get("num_return_sequences", 1)
    for row in range(len(ids)):
        real = mask[row] == 1
        alone = tokens_of(model, ids[row : row + 1, real], mask[row : row + 1, real], OPTIONS[name])
        together = expected[name][row * returned : (row + 1) * returned]
        np.testing.assert_array_equal(alone, together)


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


def test_one_trace_serves_prompts_of_any_length():
    model = model_of("llama")
    for length in (2, 5):
        ids = np.full((length, length), 9, "int32")
        tokens_of(model, ids, np.ones_like(ids), {})
    (function,) = [
        trace
        for key, trace in traces_of(model).items()
        if key[:3] == ("generate", Sampling(), Rules())
    ]
    assert function.experimental_get_tracing_count() == 1


SCORES = np.log(np.array([[0.5, 0.25, 0.15, 0.06, 0.04]], "float32"))


@pytest.mark.parametrize(
    ("how", "kept"),
    [
        (Sampling(True), [0, 1, 2, 3, 4]),
        (Sampling(True, top_k=2), [0, 1]),
        (Sampling(True, top_p=0.7), [0, 1]),
        (Sampling(True, top_p=0.01), [0]),
        (Sampling(True, min_p=0.2), [0, 1, 2]),
        (Sampling(True, temperature=0.5, min_p=0.2), [0, 1]),
    ],
)
def test_tokens_that_are_drawn_from(how, kept):
    found = np.asarray(warped(keras.ops.convert_to_tensor(SCORES), how))[0]
    assert np.flatnonzero(np.isfinite(found)).tolist() == kept
    np.testing.assert_allclose(found[kept], SCORES[0, kept] / how.temperature, rtol=1e-6)
