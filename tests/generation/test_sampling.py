"""The distribution of samples, and that the same seed gives the same ones."""

import numpy as np
import pytest
import tensorflow as tf

import finetune_tf as ft
from finetune_tf.generation import sampling
from finetune_tf.generation.sampling import Sampling, entropies, log_probs_of, next_token, warped
from finetune_tf.messages import quiet

CHANCES = np.array([[0.5, 0.25, 0.15, 0.06, 0.04]])
SCORES = np.log(CHANCES).astype("float32")

RESTRICTED = [
    (Sampling(True), [0, 1, 2, 3, 4]),
    (Sampling(True, top_k=2), [0, 1]),
    (Sampling(True, top_p=0.7), [0, 1]),
    (Sampling(True, top_p=0.01), [0]),
    (Sampling(True, min_p=0.2), [0, 1, 2]),
    (Sampling(True, temperature=0.5, min_p=0.2), [0, 1]),
    # The entropy is 1.28 nats, and the information of the tokens 0.69, 1.39, 1.90, 2.81 and 3.22.
    (Sampling(True, typical_p=0.2), [1]),
    (Sampling(True, typical_p=0.7), [0, 1]),
    (Sampling(True, typical_p=0.8), [0, 1, 2]),
    (Sampling(True, epsilon_cutoff=0.05), [0, 1, 2, 3]),
    (Sampling(True, epsilon_cutoff=0.9), [0]),
    (Sampling(True, eta_cutoff=0.05), [0, 1, 2, 3]),  # sqrt(.05) · exp(-1.28) is above .05
    (Sampling(True, eta_cutoff=0.5), [0, 1]),  # sqrt(.5) · exp(-1.28) = .196
    (Sampling(True, top_k=4, top_p=0.9, min_p=0.2, typical_p=0.5), [0, 1]),
]


@pytest.mark.parametrize(("how", "kept"), RESTRICTED)
def test_tokens_that_are_drawn_from(how, kept):
    found = warped(tf.constant(SCORES), how).numpy()[0]
    assert np.flatnonzero(np.isfinite(found)).tolist() == kept
    np.testing.assert_allclose(found[kept], SCORES[0, kept] / how.temperature, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_the_restrictions_are_those_of_transformers(seed):
    torch = pytest.importorskip("torch")
    from transformers.generation import logits_process as processors

    random = np.random.default_rng(seed)
    scores = random.normal(0, 3, (4, 2000)).astype("float32")
    scores[0, :50] = -np.inf  # as rules leave them
    draw = random.uniform
    pairs = [
        (Sampling(True, top_p=draw(0.1, 0.99)), "TopPLogitsWarper", "top_p"),
        (Sampling(True, typical_p=draw(0.1, 0.99)), "TypicalLogitsWarper", "typical_p"),
        (Sampling(True, epsilon_cutoff=draw(0, 0.1)), "EpsilonLogitsWarper", "epsilon_cutoff"),
        (Sampling(True, eta_cutoff=draw(0, 0.1)), "EtaLogitsWarper", "eta_cutoff"),
        (Sampling(True, min_p=draw(0, 0.3)), "MinPLogitsWarper", "min_p"),
    ]
    for how, name, attribute in pairs:
        how = Sampling(True, top_k=0, **{attribute: getattr(how, attribute)})
        expected = getattr(processors, name)(getattr(how, attribute))(None, torch.tensor(scores))
        found = warped(tf.constant(scores), how).numpy()
        np.testing.assert_array_equal(found, expected.numpy(), err_msg=str(how))


@pytest.mark.parametrize(
    "how", [Sampling(True, 1.0, 0, 0.9), Sampling(True, 1.0, 0, typical_p=0.9)]
)
@pytest.mark.parametrize("spread", [0.1, 1.0, 5.0])
def test_a_vocabulary_that_is_not_sorted_gives_the_same(how, spread, monkeypatch):
    scores = np.random.default_rng(0).normal(0, spread, (3, 5000)).astype("float32")
    found = warped(tf.constant(scores), how).numpy()
    monkeypatch.setattr(sampling, "_FIRST", 5000)
    np.testing.assert_array_equal(found, warped(tf.constant(scores), how).numpy())
    # The first 1,024 tokens are enough for some of these distributions only.
    count = np.isfinite(found).sum(1).max()
    assert count > 1024 if spread == 0.1 else count < 5000


def test_entropies_and_log_probabilities():
    expected = -(CHANCES * np.log(CHANCES)).sum(1, keepdims=True)
    np.testing.assert_allclose(entropies(tf.constant(SCORES + 3)), expected, rtol=1e-6)
    with_none = np.append(SCORES, [[-np.inf]], axis=1)
    np.testing.assert_allclose(entropies(tf.constant(with_none)), expected, rtol=1e-6)
    found = log_probs_of(tf.constant([1]), tf.constant(with_none + 3))
    np.testing.assert_allclose(found, [np.log(0.25)], rtol=1e-6)


def test_the_best_token_is_chosen_without_sampling():
    token, scores = next_token(tf.constant(SCORES), Sampling(temperature=0.1), None)
    assert token.numpy().tolist() == [0]
    np.testing.assert_array_equal(scores, SCORES)


DRAWS = 10_000
WAYS = {
    "all": {"top_k": 0},
    "temperature": {"temperature": 2.0, "top_k": 0},
    "top_k": {"temperature": 4.0, "top_k": 4},
    "top_p": {"temperature": 4.0, "top_p": 0.6, "top_k": 0},
    "min_p": {"temperature": 4.0, "min_p": 0.3, "top_k": 0},
    "typical_p": {"temperature": 4.0, "typical_p": 0.5, "top_k": 0},
    "epsilon_cutoff": {"temperature": 4.0, "epsilon_cutoff": 0.05, "top_k": 0},
    "together": {"temperature": 3.0, "top_k": 12, "top_p": 0.8, "min_p": 0.05},
}


def chances_of(scores, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, typical_p=1.0, **others):
    """The distribution in float64, computed in the most direct way."""
    scores = scores / temperature

    def keep(kept):
        return np.where(np.isin(np.arange(len(scores)), kept), scores, -np.inf)

    def chances():
        powers = np.exp(scores - scores.max())
        return powers / powers.sum()

    if top_k:
        scores = keep(np.argsort(-scores)[:top_k])
    for mass, order in ((top_p, "chance"), (typical_p, "information")):
        now = chances()
        with np.errstate(divide="ignore", invalid="ignore"):
            information = -np.log(now)
            distance = np.abs(information - np.nansum(now * information))
        best = np.argsort(-now if order == "chance" else distance)
        if mass < 1:
            scores = keep(best[: np.searchsorted(np.cumsum(now[best]), mass) + 1])
        if order == "chance":
            scores = keep(np.flatnonzero(chances() >= min_p * chances().max()))
    scores = keep(np.flatnonzero(chances() >= others.get("epsilon_cutoff", 0)))
    return chances()


@pytest.mark.slow
@pytest.mark.parametrize("name", WAYS)
@pytest.mark.jax
def test_the_distribution_of_samples(name, tiny_decoder):
    """A chi-squared test over 10,000 samples of the next token."""
    from scipy.stats import chisquare

    with quiet():
        model = ft.load(tiny_decoder)
    ids = model.tokenizer("a very")["input_ids"]
    scores = np.asarray(model({"input_ids": np.array([ids])}))[0, -1].astype("float64")
    chances = chances_of(scores, **WAYS[name])

    def draw(seed):
        options = WAYS[name] | {"do_sample": True, "num_return_sequences": DRAWS}
        (rows,) = model.generate([ids], 1, seed=seed, **options)
        return [row[0] if len(row) else model.tokenizer.eos_token_id for row in rows]

    drawn = draw(3)
    assert drawn == draw(3) != draw(4)
    counts = np.bincount(drawn, minlength=len(chances))
    assert not counts[chances == 0].any()
    order = np.argsort(chances)
    rare = np.cumsum(chances[order]) * DRAWS < 8  # counted together
    observed, expected = (
        np.append(values[order][rare].sum(), values[order][~rare])
        for values in (counts, DRAWS * chances)
    )
    observed, expected = observed[expected > 0], expected[expected > 0]
    assert len(observed) > 2
    assert chisquare(observed, expected).pvalue > 0.001
