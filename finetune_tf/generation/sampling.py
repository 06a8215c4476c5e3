"""The next token from its scores: the best one, or one drawn at random.

Shape legend: B batch, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any

from keras import ops

from finetune_tf.generation.engine import best_of, drawn, least, rows_of

_FIRST = 1024  # tokens that are tried before the whole vocabulary is sorted, which is slower


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    The restrictions are applied in the order of the attributes, each to the distribution that the
    ones before it have left, as in transformers.

    Attributes:
        do_sample: Whether it is drawn from the distribution instead of being the best one.
        temperature: Divides the scores; below 1 the distribution gets sharper.
        top_k: Only this number of the best tokens; 0 for all.
        top_p: Only the best tokens that together have this probability (Holtzman et al. 2020).
        min_p: Only tokens with at least this fraction of the best one's probability (Nguyen et al.
            2024).
        typical_p: Only the tokens whose information is closest to the entropy of the distribution,
            and that together have this probability (Meister et al. 2023).
        epsilon_cutoff: Only tokens with at least this probability (Hewitt et al. 2022).
        eta_cutoff: Only tokens with at least this probability, or a lower one if the entropy of the
            distribution is high (Hewitt et al. 2022).
    """

    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    epsilon_cutoff: float = 0.0
    eta_cutoff: float = 0.0


def next_token(scores: Any, how: Sampling, seed: Any) -> tuple[Any, Any]:
    """Chooses a token for each row.

    Args:
        scores: (B, V).
        how: How it is chosen.
        seed: From `engine.seed_of_step`, determines what is drawn.

    Returns:
        The tokens, (B,) int32, and the scores (B, V) from which they were chosen: -inf for tokens
        that could not be drawn.
    """
    if not how.do_sample:
        return best_of(scores), scores
    scores = warped(scores, how)
    return drawn(scores, seed), scores


def log_probs_of(tokens: Any, scores: Any) -> Any:
    """Returns the log-probability of one token of each row: (B,) from (B,) and scores (B, V)."""
    return rows_of(scores, tokens[:, None])[:, 0] - ops.logsumexp(scores, axis=-1)


@dataclass(frozen=True)
class Warped:
    """A rule (`rules.Rule`) that restricts the distribution that beams are drawn from.

    Attributes:
        how: The restrictions.
        kept: How many of the best tokens remain at least, so that a text can go on where all tokens
            that end it are among the best ones.
    """

    how: Sampling
    kept: int

    def apply(self, scores: Any, seen: Any) -> Any:
        """See `rules.Rule.apply`."""
        return warped(scores, self.how, self.kept)


def warped(scores: Any, how: Sampling, kept: int = 1) -> Any:
    """Scores (B, V) of the distribution that is drawn from: -inf for tokens that are left out.

    Args:
        scores: (B, V).
        how: The restrictions.
        kept: How many tokens each restriction leaves at least.
    """
    scores = scores / how.temperature
    size = scores.shape[-1]
    kept = kept if size is None else min(kept, size)
    if how.top_k and (size is None or how.top_k < size):
        scores = _only(scores, _are_best(scores, max(how.top_k, kept)))
    if how.top_p < 1.0:
        enough = scores >= _least(scores, ops.softmax(scores), how.top_p)
        scores = _only(scores, enough | _are_best(scores, kept))
    if how.min_p > 0.0:
        chances = ops.softmax(scores)
        best = ops.max(chances, axis=-1, keepdims=True)
        scores = _only(scores, (chances >= how.min_p * best) | _are_best(scores, kept))
    if how.typical_p < 1.0:
        chances, entropy = ops.softmax(scores), entropies(scores)
        typicality = -ops.abs(-ops.log_softmax(scores) - entropy)
        typical = typicality >= _least(typicality, chances, how.typical_p)
        scores = _only(scores, typical | _are_best(typicality, kept))
    if how.epsilon_cutoff > 0.0:
        scores = _at_least(scores, how.epsilon_cutoff, kept)
    if how.eta_cutoff > 0.0:
        eta = how.eta_cutoff
        scores = _at_least(scores, ops.minimum(eta, eta**0.5 * ops.exp(-entropies(scores))), kept)
    return scores


def entropies(scores: Any) -> Any:
    """Returns the entropy (B, 1) in nats of the distribution of each row of scores (B, V)."""
    logs = ops.log_softmax(scores)
    chances = ops.exp(logs)
    # Where a token is impossible, 0 · -inf counts as 0.
    return -ops.sum(ops.where(chances > 0.0, logs * chances, 0.0), axis=-1, keepdims=True)


def _only(scores: Any, kept: Any) -> Any:
    return ops.where(kept, scores, float("-inf"))


def _at_least(scores: Any, chance: Any, kept: int) -> Any:
    """Scores with -inf for tokens below a probability; the best tokens always remain."""
    return _only(scores, (ops.softmax(scores) >= chance) | _are_best(scores, kept))


def _are_best(keys: Any, count: int) -> Any:
    """Returns which tokens are among so many with the highest keys, (B, V) bool; ties count."""
    if count == 1:
        return keys >= ops.max(keys, axis=-1, keepdims=True)
    return keys >= ops.top_k(keys, count)[0][:, -1:]


def _least(keys: Any, chances: Any, mass: float) -> Any:
    """Returns the lowest key of the tokens that have a probability together.

    They are as few as possible, the highest keys first. If the first 1,024 have the probability,
    the vocabulary is not sorted; the result is the same.

    Args:
        keys: (B, V), what the tokens are sorted by.
        chances: (B, V), their probabilities.
        mass: The probability, below 1.

    Returns:
        (B, 1).
    """
    size = ops.shape(keys)[1]

    def of_best(count: Any) -> tuple[Any, Any]:
        best, places = ops.top_k(keys, count)
        total = ops.cumsum(rows_of(chances, places), axis=-1)
        reached = ops.sum(ops.cast(total < mass, "int32"), axis=-1, keepdims=True)
        is_enough = ops.all(reached < count)
        return rows_of(best, ops.minimum(reached, count - 1)), is_enough

    lowest, is_enough = of_best(least(size, _FIRST))
    return ops.cond(is_enough | (size <= _FIRST), lambda: lowest, lambda: of_best(size)[0])
