"""The next token from its scores: the best one, or one drawn at random.

Shape legend: B batch, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        do_sample: Whether it is drawn from the distribution instead of being the best one.
        temperature: Divides the scores; below 1 the distribution gets sharper.
        top_k: Only so many of the best tokens are drawn from; 0 for all.
        top_p: Only the best tokens that together have this probability (Holtzman et al. 2020).
        min_p: Only tokens that have at least this share of the best one's probability.
    """

    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    min_p: float = 0.0


@dataclass(frozen=True)
class Rules:
    """What is changed of the scores before a token is chosen.

    Attributes:
        repetition_penalty: Divides positive scores of tokens that occur already, and multiplies
            negative ones (Keskar et al. 2019); 1 for no penalty.
        no_repeat_ngram_size: So many tokens in succession never occur twice (Paulus et al. 2018);
            0 for no such rule.
        min_new_tokens: Tokens that are generated before one that ends the text.
    """

    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    min_new_tokens: int = 0

    def apply(self, scores: Any, ids: Any, mask: Any, step: Any, eos: tuple[int, ...]) -> Any:
        """Scores (B, V) as the rules change them.

        Args:
            scores: Logits or log-probabilities of the next token.
            ids: (B, K), the tokens so far.
            mask: (B, K), 1 for real ones.
            step: How many tokens were generated.
            eos: The tokens that end a text.
        """
        import tensorflow as tf

        if self.repetition_penalty != 1.0:
            scores = penalized(scores, ids, mask, self.repetition_penalty)
        if self.no_repeat_ngram_size:
            scores = without_repeats(scores, ids, mask, self.no_repeat_ngram_size)
        if self.min_new_tokens and eos:
            ends = tf.reduce_max(tf.one_hot(list(eos), scores.shape[-1]), axis=0) > 0
            early = step < self.min_new_tokens
            scores = tf.where(ends & early, tf.constant(float("-inf"), scores.dtype), scores)
        return scores


def without_repeats(scores: Any, ids: Any, mask: Any, size: int) -> Any:
    """Scores (B, V) with -inf for tokens that would repeat `size` tokens in succession.

    Args:
        scores: (B, V).
        ids: (B, K), the tokens so far.
        mask: (B, K), 1 for real ones.
        size: Length of the successions.
    """
    import tensorflow as tf

    # A token is forbidden where the size - 1 tokens before it are the last ones of the text.
    length = tf.shape(ids)[1]
    count = tf.maximum(length - size + 1, 0)
    same = tf.cast(mask[:, :count], "bool")
    for i in range(size - 1):
        last = tf.gather(ids, tf.maximum(length - size + 1 + i, 0), axis=1)[:, None]
        same &= tf.equal(ids[:, i : i + count], last)
    follows = ids[:, size - 1 : size - 1 + count]
    hits = tf.scatter_nd(
        _places(follows), tf.reshape(tf.cast(same, "int32"), [-1]), tf.shape(scores)
    )
    return tf.where(hits > 0, tf.constant(float("-inf"), scores.dtype), scores)


def _places(ids: Any) -> Any:
    """Row and token of each id (B, N): (B · N, 2)."""
    import tensorflow as tf

    batch, length = tf.unstack(tf.shape(ids))
    return tf.stack([tf.repeat(tf.range(batch), length), tf.reshape(ids, [-1])], axis=1)


def penalized(logits: Any, ids: Any, mask: Any, penalty: float) -> Any:
    """Scores (B, V) with those of tokens that occur already made worse.

    Args:
        logits: (B, V).
        ids: (B, K), the tokens so far.
        mask: (B, K), 1 for real ones.
        penalty: As of `Rules.repetition_penalty`.
    """
    import tensorflow as tf

    counts = tf.scatter_nd(_places(ids), tf.reshape(tf.cast(mask, "int32"), [-1]), tf.shape(logits))
    worse = tf.where(logits < 0, logits * penalty, logits / penalty)
    return tf.where(counts > 0, worse, logits)


def next_token(logits: Any, how: Sampling, seed: Any) -> Any:
    """(B,) int32 from scores (B, V); `seed` (2,) int64 decides what is drawn."""
    import tensorflow as tf

    if not how.do_sample:
        return tf.argmax(logits, axis=-1, output_type="int32")
    return tf.random.stateless_categorical(warped(logits, how), 1, seed, dtype="int32")[:, 0]


def warped(logits: Any, how: Sampling) -> Any:
    """Scores (B, V) of the distribution that is drawn from: -inf for tokens that are left out."""
    import tensorflow as tf

    logits = logits / how.temperature
    lowest = tf.constant(float("-inf"), logits.dtype)
    size = logits.shape[-1]
    if how.top_k and (size is None or how.top_k < size):
        least = tf.math.top_k(logits, how.top_k, sorted=True).values[:, -1:]
        logits = tf.where(logits < least, lowest, logits)
    if how.top_p < 1.0:
        ordered = tf.sort(logits, direction="ASCENDING")
        below = tf.cumsum(tf.nn.softmax(ordered), axis=-1)  # of a token and all that are worse
        kept = tf.reduce_sum(tf.cast(below > 1.0 - how.top_p, "int32"), axis=-1, keepdims=True)
        kept = tf.maximum(kept, 1)
        least = tf.gather(ordered, tf.shape(logits)[1] - kept, batch_dims=1)
        logits = tf.where(logits < least, lowest, logits)
    if how.min_p > 0.0:
        chances = tf.nn.softmax(logits)
        least = how.min_p * tf.reduce_max(chances, axis=-1, keepdims=True)
        logits = tf.where(chances < least, lowest, logits)
    return logits
