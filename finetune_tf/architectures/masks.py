"""Attention masks, which specify to which tokens of the context each query may attend.

A mask is boolean, True where a query may attend to a key, and broadcastable to (B, H, Q, K). It is
computed once per forward pass and passed to every block. Each function below makes one kind of
mask; kinds are combined with `&`.

Shape legend: B batch, H heads, L length, Q query positions, K key positions.
"""

from typing import Any

import keras
from keras import ops

from finetune_tf.architectures.layers import PACKAGE, ConfigLayer


def open_mask() -> Any:
    """Returns a mask (1, 1, 1, 1) that hides no token."""
    return ops.ones((1, 1, 1, 1), "bool")


def padding_mask(attention_mask: Any) -> Any:
    """Hides padding from every query: (B, K), 1 for tokens and 0 for padding, to (B, 1, 1, K).

    Example:
        >>> padding_mask(np.array([[1, 1, 0]])).numpy().tolist()
        [[[[True, True, False]]]]
    """
    # LiteRT has no slices that add axes to (B, K).
    return ops.expand_dims(ops.cast(attention_mask, "bool"), (1, 2))


def pair_mask(attention_mask: Any) -> Any:
    """Hides padding from every query and everything from padding: (B, L) to (B, 1, L, L)."""
    real = ops.cast(attention_mask, "bool")
    return ops.logical_and(ops.expand_dims(real, (1, 3)), ops.expand_dims(real, (1, 2)))


def causal_mask(length: Any) -> Any:
    """Returns a mask (1, 1, L, L) in which a token attends to itself and to earlier tokens.

    Example:
        >>> causal_mask(3)[0, 0].numpy().astype(int).tolist()
        [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    """
    steps = ops.arange(length)
    return (steps[:, None] >= steps[None])[None, None]


def window_mask(length: Any, size: int) -> Any:
    """Returns a mask (1, 1, L, L) in which a token attends to up to `size` tokens on each side."""
    steps = ops.arange(length)
    return (ops.abs(steps[:, None] - steps[None]) <= size)[None, None]


def segment_mask(segment_ids: Any) -> Any:
    """Restricts attention to the same segment of a packed sequence: ids (B, L) to (B, 1, L, L)."""
    return ops.equal(segment_ids[:, None, :, None], segment_ids[:, None, None, :])


def prefix_mask(length: Any, prefix_lengths: Any) -> Any:
    """Returns causal masks with a prefix visible to all tokens: lengths (B,) to (B, 1, L, L).

    The prefix-LM mask of Raffel et al. 2020.
    """
    in_prefix = ops.arange(length) < ops.cast(prefix_lengths, "int32")[:, None]  # (B, L)
    return ops.logical_or(causal_mask(length), in_prefix[:, None, None, :])


def seen_tokens(mask: Any) -> Any:
    """Returns which tokens of the context at least one query attends to; padding is none of them.

    Args:
        mask: (B, 1, Q, K), the same for all heads.

    Returns:
        (B, K), boolean.
    """
    return ops.any(mask, axis=(1, 2))


@keras.saving.register_keras_serializable(PACKAGE)
class AttentionMask(ConfigLayer):
    """Computes the mask of a model's blocks from the inputs of the model.

    Args:
        causal: Whether a token attends only to itself and to earlier tokens.
        window: To how many tokens on each side a token attends; None for no limit.
        mask_queries: Whether queries that are padding attend to nothing (DeBERTa) instead of to all
            tokens that are not padding.
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

    @property
    def causal(self) -> bool:
        """Whether a token attends only to itself and to the tokens before it."""
        return self._config["causal"]

    def call(
        self,
        attention_mask: Any,
        segment_ids: Any = None,
        prefix_lengths: Any = None,
        last_query: bool = False,
    ) -> Any:
        """Combines all restrictions into one mask.

        Args:
            attention_mask: (B, L), 1 for tokens and 0 for padding.
            segment_ids: (B, L), the segment of each token in packed sequences: only tokens of the
                same segment attend to each other.
            prefix_lengths: (B,), how many of the first tokens are visible to all tokens despite a
                causal mask.
            last_query: Whether the last token is the only query, as in the steps of generation.

        Returns:
            Boolean, (B, 1, 1, L) if the mask is the same for all queries or there is only one,
            else (B, 1, L, L).
        """
        length, window = ops.shape(attention_mask)[1], self._config["window"]
        if last_query:
            mask = padding_mask(attention_mask)
            if window is not None:
                near = ops.arange(length) >= length - 1 - window
                mask = ops.logical_and(mask, near[None, None, None])
            return mask
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
        self,
        attention_mask: Any,
        segment_ids: Any = None,
        prefix_lengths: Any = None,
        last_query: bool = False,
    ) -> keras.KerasTensor:
        """Returns the spec of the output, (B, 1, 1, L) or (B, 1, L, L), boolean."""
        batch, length = attention_mask.shape
        same = segment_ids is None and self._config == {
            "causal": False,
            "window": None,
            "mask_queries": False,
        }
        return keras.KerasTensor((batch, 1, 1 if same else length, length), "bool")
