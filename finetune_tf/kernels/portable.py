"""The kernels in `keras.ops`: correct on every backend, and the reference for faster ones.

Shape legend: B batch, H heads, Q query positions, K key positions, D features.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from finetune_tf.errors import CheckpointError

Tensor = Any

# Names as in Hugging Face configs (`hidden_act`). "gelu" is the exact one, with erf.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    # With erf as PyTorch computes it; Keras's own has erfc, which TensorFlow fuses with nothing.
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
    """The activation function behind a Hugging Face `hidden_act`.

    Raises:
        CheckpointError: If the name is not one of `ACTIVATIONS`.
    """
    if name not in ACTIVATIONS:
        raise CheckpointError(
            f"The activation {name!r} is not supported; known are {', '.join(sorted(ACTIVATIONS))}."
        )
    return ACTIVATIONS[name]


def dense(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """A dense layer: `x @ kernel + bias`.

    Args:
        x: (…, D).
        kernel: (D, units).
        bias: (units,), or None for none.

    Returns:
        (…, units).
    """
    product = ops.matmul(x, kernel)
    return product if bias is None else product + bias


def activated(
    layer: keras.layers.Layer, x: Tensor, activation: str, training: bool | None = None
) -> Tensor:
    """Calls a Dense layer and applies an activation to its output.

    Args:
        layer: From (…, D) to (…, units). It is called, so it may be a wrapper around a Dense layer.
        x: (…, D).
        activation: A Hugging Face activation name.
        training: Whether gradients will be asked for; the values do not depend on it.

    Returns:
        (…, units).
    """
    return ACTIVATIONS[activation](layer(x))


def embedding_lookup(table: keras.Variable, ids: Tensor) -> Tensor:
    """Rows (…, D) of a table (V, D) by their numbers (…,)."""
    return ops.take(table, ids, axis=0)


def layer_norm(x: Tensor, gamma: Tensor, beta: Tensor | None, epsilon: float) -> Tensor:
    """Layer normalisation over the last axis (Ba et al. 2016), float32 inside.

    Args:
        x: (..., D), any float type; the result has the same.
        gamma: (D,) scale, float32.
        beta: (D,) offset, float32, or None for none.
        epsilon: Added to the variance.
    """
    wide = ops.cast(x, gamma.dtype)
    centred = wide - ops.mean(wide, axis=-1, keepdims=True)
    variance = ops.mean(ops.square(centred), axis=-1, keepdims=True)
    scaled = centred * ops.rsqrt(variance + epsilon) * gamma
    return ops.cast(scaled if beta is None else scaled + beta, x.dtype)


def rms_norm(x: Tensor, gamma: Tensor, epsilon: float) -> Tensor:
    """Division by the root mean square of the last axis, float32 inside; arguments as above."""
    wide = ops.cast(x, gamma.dtype)
    square = ops.mean(ops.square(wide), axis=-1, keepdims=True)
    return ops.cast(wide * ops.rsqrt(square + epsilon) * gamma, x.dtype)


def add_norm(
    x: Tensor,
    residual: Tensor,
    gamma: Tensor,
    beta: Tensor | None,
    epsilon: float,
    dropout: keras.layers.Dropout,
    training: bool | None = None,
) -> Tensor:
    """Dropout, residual and layer normalisation: what ends a part of a BERT block.

    Args:
        x: (…, D), what the part gives.
        residual: (…, D), what went into it.
        gamma: (D,) scale, float32.
        beta: (D,) offset, float32, or None for none.
        epsilon: Added to the variance.
        dropout: Whose rate and seeds apply to `x`.
        training: Whether dropout is active.
    """
    return layer_norm(residual + dropout(x, training=training), gamma, beta, epsilon)


def masked_softmax(
    scores: Tensor,
    mask: Tensor,
    dropout: keras.layers.Dropout | None = None,
    training: bool | None = None,
) -> Tensor:
    """Softmax over keys, where masked keys get no weight; float32 inside.

    Args:
        scores: (B, H, Q, K).
        mask: Broadcastable to (B, H, Q, K), true for a key that may be seen and false for one that
            may not, as from `architectures.masks`. A row that may see nothing gets equal weights
            instead of NaN.
        dropout: Whose rate and seeds apply to the weights; None for none.
        training: Whether dropout is active.
    """
    weights = _softmax(scores, mask)
    return weights if dropout is None else dropout(weights, training=training)


def _softmax(scores: Tensor, mask: Tensor) -> Tensor:
    wide = ops.cast(scores, "float32") if scores.dtype != "float64" else scores
    return ops.cast(ops.softmax(blocked(wide, mask), axis=-1), scores.dtype)


def blocked(scores: Tensor, mask: Tensor) -> Tensor:
    """Scores with a great negative number added where the mask is false; arguments as above."""
    return scores + (1.0 - ops.cast(mask, scores.dtype)) * -1e30


def is_tracing() -> bool:
    """Whether a step is being traced, and not just a number read; True where nobody knows."""
    return True


def summed_over_devices(gradients: list[Tensor | None]) -> list[Tensor | None]:
    """Gradients of a loss over all devices. Only TensorFlow's come in parts, one a device."""
    return gradients


def summed_gradient(gradient: Tensor, whole: bool) -> Tensor:
    """A gradient in which each row of a table stands once. Only TensorFlow's may come otherwise.

    Args:
        gradient: As the backend gives it.
        whole: Whether rows whose gradient is 0 must be there. Without them, only
            `scaled_gradient`, `global_norm` and `adamw_update` take it.
    """
    return gradient


def scaled_gradient(gradient: Tensor, scale: Tensor) -> Tensor:
    """A gradient times a scalar."""
    return gradient * ops.cast(scale, gradient.dtype)


def global_norm(gradients: list[Tensor]) -> Tensor:
    """The Euclidean norm of all gradients together, a float32 scalar."""
    squares = [ops.sum(ops.square(ops.cast(gradient, "float32"))) for gradient in gradients]
    return ops.sqrt(sum(squares[1:], squares[0]))


def adamw_numbers(step: Tensor, learning_rate: Tensor, beta_1: float, beta_2: float) -> dict:
    """What the updates of all variables have in common.

    Args:
        step: Number of this step, from 1, as a float scalar.
        learning_rate: Float scalar.
        beta_1: Decay of the mean gradient.
        beta_2: Decay of the mean squared gradient.

    Returns:
        Arguments of `adamw_update`.
    """
    return {
        "learning_rate": learning_rate,
        "beta_1_power": ops.power(ops.cast(beta_1, step.dtype), step),
        "beta_2_power": ops.power(ops.cast(beta_2, step.dtype), step),
    }


def adamw_update(
    variable: keras.Variable,
    gradient: Tensor,
    momentum: keras.Variable,
    velocity: keras.Variable,
    **numbers: Any,
) -> None:
    """One step of AdamW, in place.

    Args:
        variable: To be updated; gradient, momentum and velocity share its shape and dtype.
        gradient: Of the loss, as from `summed_gradient`, already clipped.
        momentum: Running mean of gradients, updated too.
        velocity: Running mean of squared gradients, updated too.
        **numbers: As of `adamw_moved`.
    """
    old = (variable, momentum, velocity)
    moved = adamw_moved(variable, gradient, momentum, velocity, **numbers)
    for item, value in zip(old, moved, strict=True):
        item.assign(value)


def adamw_moved(
    variable: Tensor,
    gradient: Tensor,
    momentum: Tensor,
    velocity: Tensor,
    *,
    learning_rate: Tensor,
    beta_1_power: Tensor,
    beta_2_power: Tensor,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    weight_decay: float,
) -> tuple:
    """Where a step of AdamW (Loshchilov & Hutter 2019) leads, epsilon where PyTorch has it.

    Args:
        variable: The weights.
        gradient: Of the loss.
        momentum: Running mean of gradients.
        velocity: Running mean of squared gradients.
        learning_rate: Float scalar.
        beta_1_power: `beta_1` to the power of the number of this step.
        beta_2_power: `beta_2` likewise.
        beta_1: Decay of `momentum`.
        beta_2: Decay of `velocity`.
        epsilon: Added to the root of the bias-corrected velocity.
        weight_decay: Share of the variable taken off per unit of learning rate.

    Returns:
        The new variable, momentum and velocity.
    """
    momentum = momentum + (gradient - momentum) * (1.0 - beta_1)
    velocity = velocity + (ops.square(gradient) - velocity) * (1.0 - beta_2)
    velocity_correction = ops.sqrt(1.0 - beta_2_power)
    change = momentum / (ops.sqrt(velocity) / velocity_correction + epsilon)
    kept = variable * (1.0 - learning_rate * weight_decay)
    return kept - (learning_rate / (1.0 - beta_1_power)) * change, momentum, velocity
