"""Beam search that draws its candidates: their distribution, and that a seed repeats them."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

import finetune_tf as ft
from finetune_tf.generation.beams import Beams, advance, start
from finetune_tf.generation.ends import Ends
from finetune_tf.generation.sampling import Sampling, warped
from finetune_tf.messages import quiet

TEXTS = 20_000


@pytest.fixture(scope="module")
def model(tiny_decoder):
    with quiet():
        return ft.load(tiny_decoder)


def chi_squared(counts, chances):
    """The p-value of counts, those of rare outcomes together."""
    from scipy.stats import chisquare

    assert not counts[chances == 0].any()
    is_rare = chances * counts.sum() < 8
    observed, expected = (
        np.append(values[~is_rare], values[is_rare].sum())
        for values in (counts, chances * counts.sum())
    )
    observed, expected = observed[expected > 0], expected[expected > 0]
    assert len(observed) > 3
    return chisquare(observed, expected).pvalue


def test_candidates_are_drawn_without_replacement():
    """The sets of four candidates of six tokens, against the product of their probabilities."""
    chances = np.array([0.4, 0.25, 0.15, 0.1, 0.07, 0.03])
    ends, beams = Ends((5,)), Beams(2, do_sample=True)
    scores = tf.tile(np.log(chances).astype("float32")[None, None], (TEXTS, 2, 1))
    state = start(tf.zeros([TEXTS], "int32"), tf.constant(3), beams, 0)
    state, _ = advance(state, scores, tf.constant(3), beams, ends, tf.constant([1, 2], "int64"))
    # The two best candidates that do not end go on.
    running = state.running[:, :, 0].numpy()
    pairs = np.zeros((6, 6))
    for drawn in itertools.permutations(range(6), 4):
        probability = np.prod([chances[t] / (1 - chances[list(drawn[:i])].sum())
                               for i, t in enumerate(drawn)])  # fmt: skip
        first, second = sorted(set(drawn) - {5})[:2]
        pairs[first, second] += probability
    np.testing.assert_allclose(pairs.sum(), 1)
    counts = np.zeros((6, 6))
    np.add.at(counts, (running[:, 0], running[:, 1]), 1)
    assert chi_squared(counts.ravel(), pairs.ravel()) > 0.001


@pytest.mark.slow
@pytest.mark.jax
def test_a_seed_repeats_texts(model):
    options = {"max_new_tokens": 6, "do_sample": True, "num_beams": 3, "temperature": 3.0}
    first = ft.generate(model, ["a very", "the"], seed=1, **options)
    assert first == ft.generate(model, ["a very", "the"], seed=1, **options)
    assert first != ft.generate(model, ["a very", "the"], seed=2, **options)
    texts = ft.generate(model, "a very", num_return_sequences=3, **options)
    assert len(set(texts)) == 3


def test_enough_tokens_remain_to_go_on():
    scores = tf.constant(np.log([[0.6, 0.2, 0.1, 0.06, 0.04]]), "float32")
    for name, value in {
        "top_k": 1,
        "top_p": 0.1,
        "min_p": 0.9,
        "epsilon_cutoff": 0.9,
        "eta_cutoff": 0.9,
    }.items():
        how = Sampling(True, **{"top_k": 0, name: value})
        found = warped(scores, how, kept=3).numpy()[0]
        assert np.flatnonzero(np.isfinite(found)).tolist() == [0, 1, 2], name
        assert np.isfinite(warped(scores, how).numpy()).sum() == 1, name


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_restrictions_of_beams_are_those_of_transformers(seed):
    torch = pytest.importorskip("torch")
    from transformers.generation import logits_process as processors

    random = np.random.default_rng(seed)
    scores = random.normal(0, 3, (4, 200)).astype("float32")
    scores[0, :50] = -np.inf
    draw, kept = random.uniform, int(random.integers(2, 5))
    for name, warper, value in [
        ("top_k", "TopKLogitsWarper", int(random.integers(1, 6))),
        ("top_p", "TopPLogitsWarper", draw(0.1, 0.99)),
        ("typical_p", "TypicalLogitsWarper", draw(0.1, 0.99)),
        ("epsilon_cutoff", "EpsilonLogitsWarper", draw(0, 0.9)),
        ("eta_cutoff", "EtaLogitsWarper", draw(0, 0.9)),
        ("min_p", "MinPLogitsWarper", draw(0, 0.9)),
    ]:
        how = Sampling(True, **{"top_k": 0, name: value})
        warp = getattr(processors, warper)(value, min_tokens_to_keep=kept)
        expected = warp(None, torch.tensor(scores)).numpy()
        np.testing.assert_array_equal(warped(tf.constant(scores), how, kept), expected, str(how))


WAYS = {
    "plain": {"temperature": 3.0, "top_k": 0},
    "restricted": {"temperature": 4.0, "top_k": 6, "top_p": 0.8},
    "normalized": {"temperature": 4.0, "top_k": 5, "renormalize_logits": True, "min_p": 0.2},
}


@pytest.mark.slow
@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)
def test_texts_have_the_distribution_of_pytorchs(options, model, tiny_decoder):
    """A chi-squared test of homogeneity between 4,000 texts of three tokens of each library."""
    torch = pytest.importorskip("torch")
    from scipy.stats import chi2_contingency
    from transformers import AutoModelForCausalLM

    texts, options = 4000, options | {"do_sample": True, "num_beams": 2}
    ids = model.tokenizer("a very")["input_ids"]
    found = model.generate([ids] * texts, 3, batch_size=1000, **options)
    torch_model = AutoModelForCausalLM.from_pretrained(tiny_decoder).eval()
    torch.manual_seed(0)
    prompts = torch.tensor([ids] * texts)
    with torch.inference_mode():
        rows = torch_model.generate(
            prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=3, **options
        )
    end = model.tokenizer.eos_token_id
    expected = [tuple(itertools.takewhile(lambda token: token != end, row))
                for row in rows[:, len(ids) :].tolist()]  # fmt: skip
    both = [list(map(tuple, map(np.ndarray.tolist, found))), expected]
    kinds = {text: i for i, text in enumerate(sorted({*both[0], *both[1]}))}
    counts = np.array([np.bincount([kinds[t] for t in one], minlength=len(kinds)) for one in both])
    often = counts.sum(0) >= 16
    counts = np.column_stack([counts[:, often], counts[:, ~often].sum(1)])
    counts = counts[:, counts.sum(0) > 0]
    assert counts.shape[1] > 10
    assert chi2_contingency(counts).pvalue > 0.001
