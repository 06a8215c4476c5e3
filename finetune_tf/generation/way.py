"""How tokens are generated, and the traced functions that do it."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from finetune_tf.generation.beams import Beams
from finetune_tf.generation.ends import Ends
from finetune_tf.generation.rules import Rule
from finetune_tf.generation.sampling import Sampling
from finetune_tf.graph.traces import traces_of

_MOST_STEPS = 2**32  # more tokens than any text has, so that no two samples share a seed


@dataclass(frozen=True)
class Way:
    """How tokens are generated, and what the graph of the loop depends on.

    Attributes:
        choice: How each token is chosen: by sampling (or as the best one), or by beam search.
        rules: What is changed of the scores before, in this order.
        ends: What ends a text.
        padding: The token that follows the end of a text.
        returned: Number of texts that beam search returns for each prompt.
        first: The token with which the targets of an encoder-decoder begin; None for other models.
        has_scores: Whether the log-probabilities of the chosen tokens are summed. Beam search
            always does that.
    """

    choice: Sampling | Beams = Sampling()
    rules: tuple[Rule, ...] = ()
    ends: Ends = Ends()
    padding: int = 0
    returned: int = 1
    first: int | None = None
    has_scores: bool = False

    def continues(self, prompt: np.ndarray) -> np.ndarray:
        """Returns the tokens (tokens,) before the generated ones: a prompt, or that of a target."""
        return prompt if self.first is None else np.array([self.first], "int32")


def trace(model: keras.Model, key: tuple, function: Callable, signature: list) -> Any:
    """Returns a traced function of a model, from the cache of the model if it is in there.

    Args:
        model: The model, which becomes the first argument of the function.
        key: Distinguishes the function from others of the model.
        function: What is traced.
        signature: The shapes and dtypes of its other arguments.
    """
    import tensorflow as tf

    traces, key = traces_of(model), (*key, len(model.weights))
    if key not in traces:
        reference = weakref.ref(model)  # the trace must not keep the model alive
        traced = tf.function(
            lambda *arguments: function(reference(), *arguments),
            input_signature=signature,
            autograph=False,
        )
        traces[key] = traced.get_concrete_function()
    return traces[key]


def prompts() -> list:
    """Returns the signature of prompts: ids and mask."""
    import tensorflow as tf

    return [tf.TensorSpec((None, None), tf.int32), tf.TensorSpec((None, None), tf.int32)]


def scalar(dtype: str) -> Any:
    """Returns the signature of one number."""
    import tensorflow as tf

    return tf.TensorSpec((), dtype)


def seeds() -> Any:
    """Returns the signature of the seed of samples."""
    import tensorflow as tf

    return tf.TensorSpec((2,), tf.int64)


def seed_of_step(seed: Any, step: Any) -> Any:
    """Returns the seed of one step, (2,) int64.

    Args:
        seed: (2,) int64, the seed of a call, and the index of the first prompt.
        step: Scalar, the number of generated tokens.
    """
    import tensorflow as tf

    return tf.stack([seed[0], seed[1] * _MOST_STEPS + tf.cast(step, tf.int64)])


def are_finite(logits: Any) -> Any:
    """Whether all logits are finite: a boolean scalar."""
    import tensorflow as tf

    return tf.reduce_all(tf.math.is_finite(logits))
