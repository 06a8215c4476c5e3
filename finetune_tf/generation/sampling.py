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
        repetition_penalty: Divides positive scores of tokens that occur already, and multiplies
            negative ones (Keskar et al. 2019); 1 for no penalty.
    """

    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0


def penalized(logits: Any, ids: Any, mask: Any, penalty: float) -> Any:
    """Scores (B, V) with those of tokens that occur already made worse.

    Args:
        logits: (B, V).
        ids: (B, K), the tokens so far.
        mask: (B, K), 1 for real ones.
        penalty: As of `Sampling.repetition_penalty`.
    """
    import tensorflow as tf

    batch, length = tf.unstack(tf.shape(ids))
    places = tf.stack([tf.repeat(tf.range(batch), length), tf.reshape(ids, [-1])], axis=1)
    counts = tf.scatter_nd(places, tf.reshape(tf.cast(mask, "int32"), [-1]), tf.shape(logits))
    worse = tf.where(logits < 0, logits * penalty, logits / penalty)
    return tf.where(counts > 0, worse, logits)


def next_token(logits: Any, how: Sampling, seed: Any) -> Any:
    """(B,) int32 from scores (B, V); `seed` (2,) int32 decides what is drawn."""
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
