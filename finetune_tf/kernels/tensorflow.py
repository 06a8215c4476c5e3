"""Faster kernels for TensorFlow; each computes what its namesake in `portable` computes.

On a CPU, TensorFlow runs an activation, a normalisation or a softmax as a dozen passes over
memory, forward and backward. Here each is an island: a function that XLA compiles into one loop,
with its own gradient, which computes again what is cheap instead of storing it. Matrix products
stay outside, since oneDNN's are better than XLA's there. An island is compiled for each shape,
which takes a fraction of a second; so only training uses them, where shapes repeat. Accelerators
compile whole models and need none.
"""

import contextvars
import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from finetune_tf.kernels import portable
from finetune_tf.kernels.random_bits import kept

island = functools.partial(tf.function, jit_compile=True, autograph=False)


def differentiated(function: Callable) -> Callable:
    """`tf.custom_gradient`, traced once for each combination of shapes and types.

    `tf.custom_gradient` alone registers a gradient each time it is traced, for the life of the
    process, and what it registers refers to the graph that it was traced in: to a whole training
    step, and through it to the weights and the optimizer of a model. As a function of its own, it
    is traced in a graph that captures nothing of a model, and reused by every later model.
    """
    return tf.function(tf.custom_gradient(function), autograph=False)


def dense(x: Any, kernel: Any, bias: Any | None) -> Any:
    """See `portable.dense`; a product with two axes takes the bias with it."""
    x, kernel = tf.convert_to_tensor(x), tf.convert_to_tensor(kernel)
    out = tf.matmul(_flat(x), kernel)
    return _unflat(out if bias is None else tf.nn.bias_add(out, bias), x)


def activated(layer: Any, x: Any, activation: str, training: bool | None = None) -> Any:
    """See `portable.activated`.

    With two axes all along, oneDNN adds the bias and applies the activation inside the product.
    """
    x = tf.convert_to_tensor(x)
    pays = activation != "linear" and islands_pay(training, x)
    activate = _activation(activation) if pays else portable.ACTIVATIONS[activation]
    return _unflat(activate(layer(_flat(x))), x)


def _flat(x: tf.Tensor) -> tf.Tensor:
    return x if x.shape.rank == 2 else tf.reshape(x, (-1, x.shape[-1]))


def _unflat(out: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """Rows (N, units) with the axes of the `x` (…, D) that they were computed from."""
    if x.shape.rank == 2:
        return out
    return tf.reshape(out, tf.concat([tf.shape(x)[:-1], out.shape[-1:]], axis=0))


def embedding_lookup(table: Any, ids: Any) -> Any:
    """See `portable.embedding_lookup`; a variable is not read as a whole.

    Reading one whose rows were ever assigned one by one, TensorFlow copies it.
    """
    return tf.gather(table.value, ids)


@functools.cache
def _activation(name: str) -> Callable:
    @island
    def forward(x: tf.Tensor) -> tf.Tensor:
        return tf.cast(portable.ACTIVATIONS[name](tf.cast(x, _wide(x.dtype))), x.dtype)

    @island
    def backward(x: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            wide = tf.cast(x, _wide(x.dtype))
            tape.watch(wide)
            out = portable.ACTIVATIONS[name](wide)
        return tf.cast(tape.gradient(out, wide, tf.cast(gradient, out.dtype)), x.dtype)

    @differentiated
    def apply(x: tf.Tensor) -> tuple:
        return forward(x), lambda gradient: backward(x, gradient)

    return apply


def add_norm(
    x: Any,
    residual: Any,
    gamma: Any,
    beta: Any | None,
    epsilon: float,
    dropout: Any,
    training: bool | None = None,
) -> Any:
    """See `portable.add_norm`."""
    if not islands_pay(training, x) or beta is None:
        return portable.add_norm(x, residual, gamma, beta, epsilon, dropout, training)
    tensors = map(tf.convert_to_tensor, (x, residual, gamma, beta))
    return _add_norm(float(epsilon), float(dropout.rate))(*tensors, _seed(dropout))


@functools.cache
def _add_norm(epsilon: float, rate: float) -> Callable:
    def summed(x: tf.Tensor, residual: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        wide = _wide(x.dtype)
        return tf.cast(residual, wide) + _dropped(tf.cast(x, wide), seed, rate)

    @island
    def forward(
        x: tf.Tensor, residual: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, seed: tf.Tensor
    ) -> tuple:
        total = summed(x, residual, seed)
        mean = _row_sums(total) / x.shape[-1]
        variance = _row_sums(tf.square(total - mean)) / x.shape[-1]
        scale = tf.math.rsqrt(variance + epsilon)
        return tf.cast((total - mean) * scale * gamma + beta, x.dtype), mean, scale

    @island
    def backward(
        x: tf.Tensor,
        residual: tf.Tensor,
        gamma: tf.Tensor,
        beta: tf.Tensor,
        seed: tf.Tensor,
        out: tf.Tensor,
        mean: tf.Tensor,
        scale: tf.Tensor,
        gradient: tf.Tensor,
    ) -> tuple:
        normal = (summed(x, residual, seed) - mean) * scale
        gradient = tf.cast(gradient, normal.dtype)
        inner = gradient * gamma
        # gamma * normal, without drawing the dropout once more
        scaled = tf.cast(out, normal.dtype) - beta
        along = _row_sums(gradient * scaled) / x.shape[-1]
        total = scale * (inner - _row_sums(inner) / x.shape[-1] - normal * along)
        return (
            tf.cast(_dropped(total, seed, rate), x.dtype),
            tf.cast(total, x.dtype),
            _over_rows(gradient * normal, gamma.dtype),
            _over_rows(gradient, gamma.dtype),
        )

    @differentiated
    def apply(
        x: tf.Tensor, residual: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, seed: tf.Tensor
    ) -> tuple:
        inputs = (x, residual, gamma, beta, seed)
        outputs = forward(*inputs)
        return outputs[0], lambda gradient: (*backward(*inputs, *outputs, gradient), None)

    return apply


def masked_softmax(
    scores: Any, mask: Any, dropout: Any | None = None, training: bool | None = None
) -> Any:
    """See `portable.masked_softmax`."""
    if not islands_pay(training, scores) or dropout is None:
        return portable.masked_softmax(scores, mask, dropout, training)
    tensors = map(tf.convert_to_tensor, (scores, mask))
    return _masked_softmax(float(dropout.rate))(*tensors, _seed(dropout))


@functools.cache
def _masked_softmax(rate: float) -> Callable:
    def blocked(scores: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        return portable.blocked(tf.cast(scores, _wide(scores.dtype)), mask)

    @island
    def forward(scores: tf.Tensor, mask: tf.Tensor, seed: tf.Tensor) -> tuple:
        wide = blocked(scores, mask)
        top = tf.reduce_max(wide, axis=-1, keepdims=True)
        raised = tf.exp(wide - top)
        share = 1.0 / _row_sums(raised)
        return tf.cast(_dropped(raised * share, seed, rate), scores.dtype), top, share

    @island
    def backward(
        scores: tf.Tensor,
        mask: tf.Tensor,
        seed: tf.Tensor,
        out: tf.Tensor,
        top: tf.Tensor,
        share: tf.Tensor,
        gradient: tf.Tensor,
    ) -> tf.Tensor:
        weights = tf.exp(blocked(scores, mask) - top) * share
        gradient = tf.cast(gradient, weights.dtype)
        # What was dropped is 0 in `out`, so the sum needs neither the weights nor the draw.
        along = _row_sums(gradient * tf.cast(out, weights.dtype))
        return tf.cast(weights * (_dropped(gradient, seed, rate) - along), scores.dtype)

    @differentiated
    def apply(scores: tf.Tensor, mask: tf.Tensor, seed: tf.Tensor) -> tuple:
        inputs = (scores, mask, seed)
        outputs = forward(*inputs)
        return outputs[0], lambda gradient: (backward(*inputs, *outputs, gradient), None, None)

    return apply


def checkpoint(pure: Callable, structure: str) -> Callable:
    """See `recomputing.Pure`; what it gives, with nothing inside kept for the gradient.

    Args:
        pure: What is computed twice.
        structure: What `pure` computes, in words; of two that are equal, the first one is traced.
    """

    def run(moving: list, constant: list) -> tuple:
        moving, constant = tf.nest.map_structure(tf.convert_to_tensor, (moving, constant))
        if not tf.inside_function():
            return _differentiable(pure)(moving, constant)
        token = _traced.set(pure)
        try:
            return _checkpoint_of(structure)(moving, constant)
        finally:
            _traced.reset(token)

    return run


# What is being traced. A shared function outlives the layers it was traced with, so it holds none.
_traced: contextvars.ContextVar = contextvars.ContextVar("finetune_tf_traced")


@functools.cache
def _checkpoint_of(structure: str) -> Callable:
    """The function of all blocks of a structure, for the reason given at `differentiated`."""

    def traced(moving: list, constant: list) -> tuple:
        return _traced.get()(moving, constant)

    return tf.function(_differentiable(traced), autograph=False)


def _closed(function: Callable) -> Callable:
    """A function that TensorFlow must not open.

    Laid side by side in one graph, the second computation would be found to equal the first and be
    replaced by it.
    """
    attributes = {"_noinline": True}
    return tf.function(function, autograph=False, experimental_attributes=attributes)


def _differentiable(function: Callable) -> Callable:
    forward = _closed(function)

    @_closed
    def backward(moving: list, constant: list, gradient: tf.Tensor) -> list:
        with tf.GradientTape() as tape:
            tape.watch(moving)
            output, _ = forward(moving, constant)
        return tape.gradient(output, moving, gradient, tf.UnconnectedGradients.ZERO)

    def run(moving: list, constant: list) -> tuple:
        @tf.custom_gradient
        def apply(*given: tf.Tensor) -> tuple:
            output, states = forward([*given], constant)
            return (output, *states), lambda gradient, *_: backward([*given], constant, gradient)

        output, *states = apply(*moving)
        return output, states

    return run


def islands_pay(training: bool | None, x: Any = None) -> bool:
    """In a traced training step on a CPU; eager calls would compile for shapes seen once.

    Not for an `x` (…, 1, D) of one token a text, which is not worth the compiling.
    """
    if x is not None and x.shape[-2] == 1:
        return False
    return bool(training) and not tf.executing_eagerly() and not _accelerators()


@functools.cache
def _accelerators() -> bool:
    return bool(tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("TPU"))


def _wide(dtype: tf.DType) -> tf.DType:
    return tf.float64 if dtype == tf.float64 else tf.float32


def _seed(dropout: Any) -> tf.Tensor:
    if not dropout.rate:
        return tf.zeros(2, tf.uint32)
    return tf.cast(dropout.seed_generator.next(), tf.uint32)


def _dropped(x: tf.Tensor, seed: tf.Tensor, rate: float) -> tf.Tensor:
    return x * tf.cast(kept(tf.shape(x), seed, rate), x.dtype) if rate else x


def _row_sums(x: tf.Tensor) -> tf.Tensor:
    """Sums (…, D) to (…, 1), as a product: XLA compiles and runs that faster than a reduction."""
    size = tf.shape(x)[-1]
    sums = tf.matmul(tf.reshape(x, (-1, size)), tf.ones((size, 1), x.dtype))
    return tf.reshape(sums, (*tf.unstack(tf.shape(x))[:-1], 1))


def _over_rows(x: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Sums (…, D) to (D,)."""
    return tf.cast(tf.reduce_sum(x, axis=range(x.shape.rank - 1)), dtype)
