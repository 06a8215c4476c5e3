"""Kernels in `keras.ops`, which run on every backend and are the reference for faster ones.

Shape legend: B batch, H heads, Q query positions, K key positions, D features.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
from keras import ops

from finetune_tf.base.keras_internals import is_stateless
from finetune_tf.errors import CheckpointError

Tensor = Any

# Keys are the names in Hugging Face configs (`hidden_act`). "gelu" is the exact GELU (Hendrycks and
# Gimpel 2016); "gelu_new", "gelu_pytorch_tanh" and "gelu_fast" are its tanh approximation.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    # With erf, as in PyTorch. Keras uses erfc, which TensorFlow does not fuse with anything.
    "gelu": lambda x: 0.5 * x * (1.0 + ops.erf(x * 2**-0.5)),
    "gelu_new": lambda x: ops.gelu(x, approximate=True),
    "gelu_pytorch_tanh": lambda x: ops.gelu(x, approximate=True),
    "gelu_fast": lambda x: ops.gelu(x, approximate=True),
    "quick_gelu": lambda x: x * ops.sigmoid(1.702 * x),
    "relu": ops.relu,
    "relu6": ops.relu6,
    "relu2": lambda x: ops.square(ops.relu(x)),
    "leaky_relu": lambda x: ops.leaky_relu(x, negative_slope=0.01),
    "silu": ops.silu,
    "swish": ops.silu,
    "mish": lambda x: x * ops.tanh(ops.softplus(x)),
    "tanh": ops.tanh,
    "sigmoid": ops.sigmoid,
    "linear": lambda x: x,
}


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """Returns the activation function for a Hugging Face `hidden_act`.

    Args:
        name: A key of `ACTIVATIONS`, such as "gelu".

    Raises:
        CheckpointError: If the name is not a key of `ACTIVATIONS`.

    Example:
        >>> float(activation("relu2")(3.0))
        9.0
    """
    if name not in ACTIVATIONS:
        raise CheckpointError(
            f"The activation {name!r} is not supported. Supported activations: "
            f"{', '.join(sorted(ACTIVATIONS))}."
        )
    return ACTIVATIONS[name]


def dense(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """Computes a dense layer: `x @ kernel + bias`.

    Args:
        x: (…, D).
        kernel: (D, units).
        bias: (units,), or None for no bias.

    Returns:
        (…, units).
    """
    product = ops.matmul(x, kernel)
    return product if bias is None else product + bias


def reshaped_rows(x: Tensor, like: Tensor, *last: int) -> Tensor:
    """Reshapes a tensor to the leading axes of another one, followed by axes of its own.

    Args:
        x: With as many elements as the result.
        like: (…, D).
        last: The sizes of the last axes.

    Returns:
        (…, *last).
    """
    return ops.reshape(x, (*ops.shape(like)[:-1], *last))


def batched_matmul(x: Tensor, y: Tensor, transpose_y: bool = False) -> Tensor:
    """Computes matrix products (B, H, M, N) x (B, H, N, P), or (B, H, P, N) if `transpose_y`."""
    return ops.matmul(x, ops.transpose(y, (0, 1, 3, 2)) if transpose_y else y)


def activated(
    layer: keras.layers.Layer, x: Tensor, activation: str, training: bool | None = None
) -> Tensor:
    """Calls a Dense layer and applies an activation to its output.

    Args:
        layer: Maps (…, D) to (…, units). It is called like any layer, so it may be a wrapper around
            a Dense layer. Where its attribute `ends_with_bias` is true, its method `product` may be
            called instead, and its bias added.
        x: (…, D).
        activation: A Hugging Face activation name.
        training: Whether gradients will be computed. The result does not depend on it.

    Returns:
        (…, units).
    """
    return ACTIVATIONS[activation](layer(x))


def embedding_lookup(table: keras.Variable, ids: Tensor) -> Tensor:
    """Returns rows (…, D) of an embedding table (V, D) for ids (…,)."""
    return ops.take(table, ids, axis=0)


def layer_norm(x: Tensor, gamma: Tensor, beta: Tensor | None, epsilon: float) -> Tensor:
    """Computes layer normalisation over the last axis (Ba et al. 2016), internally in float32.

    Args:
        x: (…, D), of any float dtype. The result has the same dtype.
        gamma: (D,) scale, float32.
        beta: (D,) offset, float32, or None for no offset.
        epsilon: Added to the variance.
    """
    wide = ops.cast(x, gamma.dtype)
    centred = wide - ops.mean(wide, axis=-1, keepdims=True)
    variance = ops.mean(ops.square(centred), axis=-1, keepdims=True)
    scaled = centred * ops.rsqrt(variance + epsilon) * gamma
    return ops.cast(scaled if beta is None else scaled + beta, x.dtype)


def rms_norm(x: Tensor, gamma: Tensor, epsilon: float) -> Tensor:
    """Divides by the root mean square of the last axis (Zhang and Sennrich 2019).

    Args:
        x: (…, D), of any float dtype. The result has the same dtype; the arithmetic is in float32.
        gamma: (D,) scale, float32.
        epsilon: Added to the mean square.
    """
    wide = ops.cast(x, gamma.dtype)
    square = ops.mean(ops.square(wide), axis=-1, keepdims=True)
    return ops.cast(wide * ops.rsqrt(square + epsilon) * gamma, x.dtype)


def batch_norm(
    x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalises each channel with the statistics of the batch (Ioffe and Szegedy 2015).

    The arithmetic is in float32. The returned statistics are constants for gradients.

    Args:
        x: (batch, height, width, channels).
        gamma: (channels,).
        beta: (channels,).
        epsilon: Added to the variance.

    Returns:
        The normalised `x` in its own dtype; the mean of each channel; and the unbiased estimate of
        its variance. As in PyTorch, `x` itself is normalised with the biased one.
    """
    wide = x if keras.backend.standardize_dtype(x.dtype) == "float64" else ops.cast(x, "float32")
    mean = ops.mean(wide, axis=(0, 1, 2))
    variance = ops.mean(ops.square(wide - mean), axis=(0, 1, 2))
    out = (wide - mean) * (gamma * ops.rsqrt(variance + epsilon)) + beta
    count = ops.cast(ops.prod(ops.shape(x)[:-1]), wide.dtype)
    unbiased = variance * (count / ops.maximum(count - 1, 1))
    return ops.cast(out, x.dtype), ops.stop_gradient(mean), ops.stop_gradient(unbiased)


def add_norm(
    x: Tensor,
    residual: Tensor,
    gamma: Tensor,
    beta: Tensor | None,
    epsilon: float,
    dropout: keras.layers.Dropout,
    training: bool | None = None,
) -> Tensor:
    """Applies dropout, adds the residual and normalises: the end of each sublayer of a BERT block.

    Args:
        x: (…, D), the output of the sublayer.
        residual: (…, D), the input of the sublayer.
        gamma: (D,) scale, float32.
        beta: (D,) offset, float32, or None for no offset.
        epsilon: Added to the variance.
        dropout: The layer whose rate and seed generator are used for the dropout of `x`.
        training: Whether dropout is active.
    """
    return layer_norm(residual + dropout(x, training=training), gamma, beta, epsilon)


def masked_softmax(
    scores: Tensor,
    mask: Tensor,
    dropout: keras.layers.Dropout | None = None,
    training: bool | None = None,
) -> Tensor:
    """Computes the softmax over keys with weight 0 for masked keys, internally in float32.

    Args:
        scores: (B, H, Q, K).
        mask: Broadcastable to (B, H, Q, K), true where a query may attend to a key, as returned by
            `architectures.masks`. A query with no visible key gets equal weights instead of NaN.
        dropout: The layer whose rate and seed generator are used for the dropout of the weights;
            None for no dropout.
        training: Whether dropout is active.

    Returns:
        Attention weights (B, H, Q, K), in the dtype of the scores.
    """
    weights = _softmax(scores, mask)
    return weights if dropout is None else dropout(weights, training=training)


def _softmax(scores: Tensor, mask: Tensor) -> Tensor:
    wide = ops.cast(scores, "float32") if scores.dtype != "float64" else scores
    if scores.shape[-1] == 1:  # the first token of a decoder; `ops.softmax` would warn
        return ops.ones_like(scores)
    return ops.cast(ops.softmax(blocked(wide, mask), axis=-1), scores.dtype)


def blocked(scores: Tensor, mask: Tensor) -> Tensor:
    """Adds -1e30 to scores where the mask is false; arguments are those of `masked_softmax`."""
    return scores + (1.0 - ops.cast(mask, scores.dtype)) * -1e30


def is_tracing() -> bool:
    """Whether a training step is being traced; always True where the backend cannot tell."""
    return keras.backend.backend() != "jax" or is_stateless()


def summed_gradient(gradient: Tensor, whole: bool) -> Tensor:
    """Returns the gradient of an embedding table with repeated rows summed.

    Only TensorFlow returns sparse gradients (`tf.IndexedSlices`), in which a row can occur twice.

    Args:
        gradient: The gradient as returned by the backend.
        whole: Whether the result must be dense. A sparse result is accepted only by
            `scaled_gradient`, `global_norm` and `adamw_update`.
    """
    return gradient


def scaled_gradient(gradient: Tensor, scale: Tensor) -> Tensor:
    """Returns a gradient multiplied by a scalar."""
    return gradient * ops.cast(scale, gradient.dtype)


def global_norm(gradients: list[Tensor]) -> Tensor:
    """Returns the Euclidean norm of all gradients together, a float32 scalar."""
    squares = [ops.sum(ops.square(ops.cast(gradient, "float32"))) for gradient in gradients]
    return ops.sqrt(sum(squares[1:], squares[0]))


def move_towards(averages: list[Any], values: list[Any], share: Any) -> None:
    """Moves each average by a share of its distance to a value: a + share · (v - a).

    Args:
        averages: Variables, which are changed in place.
        values: Variables of the same shapes, which may have another dtype.
        share: A scalar.
    """
    for average, value in zip(averages, values, strict=True):
        distance = ops.cast(value, average.dtype) - average
        average.assign(average + ops.cast(share, average.dtype) * distance)


def waiting_for(values: Any) -> AbstractContextManager:
    """A context in which a traced step does nothing before it has its batch.

    Where the length of the data is unknown, TensorFlow learns that an epoch is over from a step
    that gets no batch. What does not depend on the batch may run in that step nevertheless: the
    step counter, weight decay, and the states of random generators.

    Args:
        values: Nested tensors of the batch, or what is computed from it.
    """
    return nullcontext()


def traced(function: Callable) -> Callable:
    """Wraps a function of variables and tensors in one that is traced once, where that is faster.

    On backends whose variables cannot be changed inside of a trace, it is the function itself.
    """
    return function
