"""Attention masks: which tokens of the context each query may see.

A mask is boolean, True where a query may see a key, and broadcastable to (B, H, Q, K). It is made
once a forward pass and given to every block. The functions below make one kind each; kinds are
combined with `&`.

Shape legend: B batch, H heads, L length, Q query positions, K key positions.
"""

from typing import Any

import keras
from keras import ops

from finetune_tf.architectures.layers import PACKAGE, ConfigLayer


def open_mask() -> Any:
    """Hides nothing: (1, 1, 1, 1)."""
    return ops.ones((1, 1, 1, 1), "bool")


def padding_mask(attention_mask: Any) -> Any:
    """Hides padding from every query: (B, K), 1 for real tokens, to (B, 1, 1, K)."""
    return ops.cast(attention_mask, "bool")[:, None, None, :]


def pair_mask(attention_mask: Any) -> Any:
    """Only real tokens see, and only real tokens are seen: (B, L) to (B, 1, L, L)."""
    real = ops.cast(attention_mask, "bool")
    return ops.logical_and(real[:, None, :, None], real[:, None, None, :])


def causal_mask(length: Any) -> Any:
    """A token sees itself and what stands before it: (1, 1, L, L)."""
    steps = ops.arange(length)
    return (steps[:, None] >= steps[None])[None, None]


def window_mask(length: Any, size: int) -> Any:
    """A token sees up to `size` tokens to each side: (1, 1, L, L)."""
    steps = ops.arange(length)
    return (ops.abs(steps[:, None] - steps[None]) <= size)[None, None]


def segment_mask(segment_ids: Any) -> Any:
    """A token sees its own segment of a packed row: (B, L) ids to (B, 1, L, L)."""
    return ops.equal(segment_ids[:, None, :, None], segment_ids[:, None, None, :])


def prefix_mask(length: Any, prefix_lengths: Any) -> Any:
    """A causal mask whose prefix everybody sees: lengths (B,) of the prefixes to (B, 1, L, L)."""
    in_prefix = ops.arange(length) < ops.cast(prefix_lengths, "int32")[:, None]  # (B, L)
    return ops.logical_or(causal_mask(length), in_prefix[:, None, None, :])


def seen_tokens(mask: Any) -> Any:
    """Which tokens of the context anybody sees: (B, 1, Q, K) to (B, K); padding is not among them.

    Args:
        mask: As above, the same for all heads.
    """
    return ops.any(mask, axis=(1, 2))


@keras.saving.register_keras_serializable(PACKAGE)
class AttentionMask(ConfigLayer):
    """Makes the mask of a model's blocks from its inputs.

    Args:
        causal: Whether a token sees nothing behind itself.
        window: How many tokens to each side a token sees; None for no limit.
        mask_queries: Whether padding sees nothing either, instead of all real tokens (DeBERTa).
    """

    def __init__(
        self,
        causal: bool = False,
        window: int | None = None,
        mask_queries: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.record_arguments(locals())

    def call(self, attention_mask: Any, segment_ids: Any = None, prefix_lengths: Any = None) -> Any:
        """Combines everything that limits what a token sees.

        Args:
            attention_mask: (B, L), 1 for real tokens.
            segment_ids: (B, L), where rows are packed: tokens of one id see each other.
            prefix_lengths: (B,), how many of the first tokens a causal mask shows to all tokens.

        Returns:
            Boolean, (B, 1, 1, L) where all queries see the same, else (B, 1, L, L).
        """
        length, window = ops.shape(attention_mask)[1], self._config["window"]
        mask = (pair_mask if self._config["mask_queries"] else padding_mask)(attention_mask)
        if self._config["causal"] and prefix_lengths is None:
            mask = ops.logical_and(mask, causal_mask(length))
        elif self._config["causal"]:
            mask = ops.logical_and(mask, prefix_mask(length, prefix_lengths))
        if window is not None:
            mask = ops.logical_and(mask, window_mask(length, window))
        if segment_ids is not None:
            mask = ops.logical_and(mask, segment_mask(segment_ids))
        return mask

    def compute_output_spec(
        self, attention_mask: Any, segment_ids: Any = None, prefix_lengths: Any = None
    ) -> keras.KerasTensor:
        """(B, 1, 1, L) or (B, 1, L, L), boolean."""
        batch, length = attention_mask.shape
        same = segment_ids is None and self._config == {
            "causal": False,
            "window": None,
            "mask_queries": False,
        }
        return keras.KerasTensor((batch, 1, 1 if same else length, length), "bool")
