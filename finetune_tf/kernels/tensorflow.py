"""Faster kernels for TensorFlow; each computes the same as the function of its name in `portable`.

On a CPU, TensorFlow runs an activation, a normalisation or a softmax as a dozen passes over memory,
forward and backward. Here each of them is a small subgraph that XLA compiles into one loop. Its
custom gradient rematerializes what is cheap to compute instead of storing it. Matrix products stay
outside of these subgraphs, since on a CPU those of oneDNN are faster than XLA's. A subgraph is
compiled for each shape, which takes a fraction of a second, so only training uses them, where
shapes repeat. On accelerators whole models are compiled, and the portable kernels are used.
"""

import contextvars
import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from finetune_tf.kernels import portable
from finetune_tf.kernels.choice import wants_portable
from finetune_tf.kernels.random_bits import kept
from finetune_tf.kernels.tensorflow_devices import seed_of_device

# Decorator for a subgraph that XLA compiles, an "island" in a graph that TensorFlow runs itself.
island = functools.partial(tf.function, jit_compile=True, autograph=False)


def differentiated(function: Callable) -> Callable:
    """Wraps `tf.custom_gradient` in a function that is traced once for each combination of shapes.

    `tf.custom_gradient` alone registers a gradient each time it is traced, for the lifetime of the
    process. The registered gradient refers to the graph that it was traced in: to a whole training
    step, and through it to the weights and the optimizer of a model, which would never be freed. A
    separate `tf.function` is traced in a graph that captures nothing of a model, and later models
    reuse it.
    """
    return tf.function(tf.custom_gradient(function), autograph=False)


def dense(x: Any, kernel: Any, bias: Any | None) -> Any:
    """See `portable.dense`. On two axes, TensorFlow fuses the bias with the matrix product.

    On CPUs, the fused operation of oneDNN copies the kernel to another layout in each call. That
    takes as long as the product itself if there is one token per text, as in generation.
    """
    x, kernel = tf.convert_to_tensor(x), tf.convert_to_tensor(kernel)
    if wants_portable():  # one product without reshapes, which converters confuse with others
        return tf.matmul(x, kernel) if bias is None else tf.matmul(x, kernel) + bias
    out = tf.matmul(_flatten(x), kernel)
    if _has_one_token(x):
        out = tf.ensure_shape(out, out.shape)  # separates two operations that would be fused
    return _unflatten(out if bias is None else tf.nn.bias_add(out, bias), x)


def activated(layer: Any, x: Any, activation: str, training: bool | None = None) -> Any:
    """See `portable.activated`.

    Where all tensors have two axes, oneDNN fuses bias and activation with the matrix product. In
    training, XLA fuses the bias of a Dense layer with the activation, and the gradient of the bias
    with that of the activation. Adapters that change the matrix product come before both.
    """
    if wants_portable():
        return portable.activated(layer, x, activation)
    x = tf.convert_to_tensor(x)
    if _has_one_token(x):
        return portable.activated(layer, x, activation)
    if activation == "linear" or not islands_pay(training):
        out = portable.ACTIVATIONS[activation](layer(_flatten(x)))
    elif getattr(layer, "ends_with_bias", False) and layer.bias is not None:
        product = layer.product(_flatten(x), training)
        out = _biased_activation(activation)(product, tf.convert_to_tensor(layer.bias))
    else:
        out = _activation(activation)(layer(_flatten(x)))
    return _unflatten(out, x)


def _has_one_token(x: tf.Tensor) -> bool:
    """Whether the texts of `x`, (…, L, D), have one token each."""
    return x.shape.rank > 2 and x.shape[-2] == 1


def _flatten(x: tf.Tensor) -> tf.Tensor:
    return x if x.shape.rank == 2 else tf.reshape(x, (-1, x.shape[-1]))


def _unflatten(out: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """Reshapes (N, units) to (…, units), with the leading axes of `x` (…, D)."""
    return out if x.shape.rank == 2 else reshaped_rows(out, x, out.shape[-1])


def reshaped_rows(x: Any, like: Any, *last: int) -> tf.Tensor:
    """See `portable.reshaped_rows`.

    All layers of a model have the same leading axes. In a graph, they are computed once and not for
    each reshape: that is a quarter of what is traced of a BERT.
    """
    x, like = tf.convert_to_tensor(x), tf.convert_to_tensor(like)
    if wants_portable() or tf.executing_eagerly():
        return portable.reshaped_rows(x, like, *last)
    known = _known_shapes()
    if like.ref() not in known:
        known[like.ref()] = tf.shape(like)[:-1]
    rows = known[like.ref()]
    if (rows.ref(), last) not in known:
        known[rows.ref(), last] = tf.concat([rows, last], axis=0)
    out = tf.reshape(x, known[rows.ref(), last])
    if len(last) == 1:
        known[out.ref()] = rows
    return out


def _known_shapes() -> dict:
    """The leading axes of tensors in the graph that is traced, and shapes that begin with them."""
    graph = tf.compat.v1.get_default_graph()
    if not hasattr(graph, "_finetune_tf_shapes"):  # an attribute, so that both are freed together
        graph._finetune_tf_shapes = {}
    return graph._finetune_tf_shapes


def batched_matmul(x: Any, y: Any, transpose_y: bool = False) -> tf.Tensor:
    """See `portable.batched_matmul`.

    The gradient of `tf.matmul` sums over axes that were broadcast, none here, in 15 operations.
    """
    if wants_portable() or tf.executing_eagerly():
        return tf.matmul(x, y, transpose_b=transpose_y)
    return tf.raw_ops.BatchMatMul(x=x, y=y, adj_y=transpose_y)


def embedding_lookup(table: Any, ids: Any) -> Any:
    """See `portable.embedding_lookup`. Gathers from the variable without reading all of it.

    TensorFlow copies a variable when it is read as a whole, once single rows were assigned to it.
    """
    return tf.gather(table.value, ids)


@functools.cache
def _activation(name: str) -> Callable:
    @island
    def forward(x: tf.Tensor) -> tf.Tensor:
        return tf.cast(portable.ACTIVATIONS[name](tf.cast(x, _computation_dtype(x.dtype))), x.dtype)

    @island
    def backward(x: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            wide = tf.cast(x, _computation_dtype(x.dtype))
            tape.watch(wide)
            out = portable.ACTIVATIONS[name](wide)
        return tf.cast(tape.gradient(out, wide, tf.cast(gradient, out.dtype)), x.dtype)

    @differentiated
    def apply(x: tf.Tensor) -> tuple:
        return forward(x), lambda gradient: backward(x, gradient)

    return apply


@functools.cache
def _biased_activation(name: str) -> Callable:
    """The same as `_activation` for the sum of a matrix product (N, units) and a bias (units,)."""

    def summed(product: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
        wide = _computation_dtype(product.dtype)
        return tf.cast(product, wide) + tf.cast(bias, wide)

    @island
    def forward(product: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
        return tf.cast(portable.ACTIVATIONS[name](summed(product, bias)), product.dtype)

    @island
    def backward(product: tf.Tensor, bias: tf.Tensor, gradient: tf.Tensor) -> tuple:
        with tf.GradientTape() as tape:
            x = summed(product, bias)
            tape.watch(x)
            out = portable.ACTIVATIONS[name](x)
        slope = tape.gradient(out, x, tf.cast(gradient, out.dtype))
        return tf.cast(slope, product.dtype), _sum_over_rows(slope, bias.dtype)

    @differentiated
    def apply(product: tf.Tensor, bias: tf.Tensor) -> tuple:
        return forward(product, bias), lambda gradient: backward(product, bias, gradient)

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
    x, residual, *affine = map(tf.convert_to_tensor, (x, residual, gamma, beta))
    # Variables are narrow as well under a pure policy such as "bfloat16".
    affine = [tf.cast(each, _computation_dtype(x.dtype)) for each in affine]
    kernel = _add_norm(float(epsilon), float(dropout.rate))
    out = kernel(x, residual, *affine, _next_seed(dropout))
    known = _known_shapes()
    if x.ref() in known:
        known[out.ref()] = known[x.ref()]
    return out


@functools.cache
def _add_norm(epsilon: float, rate: float) -> Callable:
    def summed(x: tf.Tensor, residual: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        wide = _computation_dtype(x.dtype)
        return tf.cast(residual, wide) + _apply_dropout(tf.cast(x, wide), seed, rate)

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
        # This is gamma * normal, without sampling the dropout mask once more.
        scaled = tf.cast(out, normal.dtype) - beta
        along = _row_sums(gradient * scaled) / x.shape[-1]
        total = scale * (inner - _row_sums(inner) / x.shape[-1] - normal * along)
        return (
            tf.cast(_apply_dropout(total, seed, rate), x.dtype),
            tf.cast(total, x.dtype),
            _sum_over_rows(gradient * normal, gamma.dtype),
            _sum_over_rows(gradient, gamma.dtype),
        )

    @differentiated
    def apply(
        x: tf.Tensor, residual: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, seed: tf.Tensor
    ) -> tuple:
        inputs = (x, residual, gamma, beta, seed)
        outputs = forward(*inputs)
        return outputs[0], lambda gradient: (*backward(*inputs, *outputs, gradient), None)

    return apply


def batch_norm(x: Any, gamma: Any, beta: Any, epsilon: float) -> tuple:
    """See `portable.batch_norm`. One operation in the place of a dozen passes over memory."""
    x, gamma, beta = map(tf.convert_to_tensor, (x, gamma, beta))
    if x.dtype == tf.float64:  # the operation has no such kernel
        return portable.batch_norm(x, gamma, beta, epsilon)
    # Not tf.nn.fused_batch_norm, which raises the epsilon.
    out, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x, scale=gamma, offset=beta, mean=[], variance=[], epsilon=epsilon, is_training=True
    )
    return out, tf.stop_gradient(mean), tf.stop_gradient(variance)


def masked_softmax(
    scores: Any, mask: Any, dropout: Any | None = None, training: bool | None = None
) -> Any:
    """See `portable.masked_softmax`."""
    if not islands_pay(training, scores) or dropout is None:
        return portable.masked_softmax(scores, mask, dropout, training)
    tensors = map(tf.convert_to_tensor, (scores, mask))
    return _masked_softmax(float(dropout.rate))(*tensors, _next_seed(dropout))


@functools.cache
def _masked_softmax(rate: float) -> Callable:
    def blocked(scores: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        return portable.blocked(tf.cast(scores, _computation_dtype(scores.dtype)), mask)

    @island
    def forward(scores: tf.Tensor, mask: tf.Tensor, seed: tf.Tensor) -> tuple:
        wide = blocked(scores, mask)
        top = tf.reduce_max(wide, axis=-1, keepdims=True)
        raised = tf.exp(wide - top)
        share = 1.0 / _row_sums(raised)
        return tf.cast(_apply_dropout(raised * share, seed, rate), scores.dtype), top, share

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
        # Dropped weights are 0 in `out`, so the sum needs neither the weights nor the dropout mask.
        along = _row_sums(gradient * tf.cast(out, weights.dtype))
        return tf.cast(weights * (_apply_dropout(gradient, seed, rate) - along), scores.dtype)

    @differentiated
    def apply(scores: tf.Tensor, mask: tf.Tensor, seed: tf.Tensor) -> tuple:
        inputs = (scores, mask, seed)
        outputs = forward(*inputs)
        return outputs[0], lambda gradient: (backward(*inputs, *outputs, gradient), None, None)

    return apply


def checkpoint(pure: Callable, structure: str) -> Callable:
    """Returns a function that computes the same as `pure` and stores no intermediate results.

    Args:
        pure: The function to rematerialize; see `remat.Pure`.
        structure: A description of what `pure` computes. Functions with equal descriptions share
            the one that was traced first.
    """

    def run(differentiable: list, constant: list) -> tuple:
        differentiable, constant = tf.nest.map_structure(
            tf.convert_to_tensor, (differentiable, constant)
        )
        if not tf.inside_function():
            return _with_rematerialization(pure)(differentiable, constant)
        token = _function_being_traced.set(pure)
        try:
            return _shared_checkpoint(structure)(differentiable, constant)
        finally:
            _function_being_traced.reset(token)

    return run


# The function that is being traced. A shared traced function outlives the layers that it was traced
# with, so it must not refer to them.
_function_being_traced: contextvars.ContextVar = contextvars.ContextVar("finetune_tf_traced")


@functools.cache
def _shared_checkpoint(structure: str) -> Callable:
    """Returns the function that all blocks of a structure share; see `differentiated` for why."""

    def traced(differentiable: list, constant: list) -> tuple:
        return _function_being_traced.get()(differentiable, constant)

    return tf.function(_with_rematerialization(traced), autograph=False)


def _not_inlined(function: Callable) -> Callable:
    """Makes a function that TensorFlow must not inline.

    Inlined into one graph, the forward pass and its rematerialization would be recognised as common
    subexpressions and merged, so that nothing would be saved.
    """
    attributes = {"_noinline": True}
    return tf.function(function, autograph=False, experimental_attributes=attributes)


def _with_rematerialization(function: Callable) -> Callable:
    forward = _not_inlined(function)

    @_not_inlined
    def backward(differentiable: list, constant: list, gradient: tf.Tensor) -> list:
        with tf.GradientTape() as tape:
            tape.watch(differentiable)
            output, _ = forward(differentiable, constant)
        return tape.gradient(output, differentiable, gradient, tf.UnconnectedGradients.ZERO)

    def run(differentiable: list, constant: list) -> tuple:
        @tf.custom_gradient
        def apply(*given: tf.Tensor) -> tuple:
            output, states = forward([*given], constant)
            return (output, *states), lambda gradient, *_: backward([*given], constant, gradient)

        output, *states = apply(*differentiable)
        return output, states

    return run


def islands_pay(training: bool | None, x: Any = None) -> bool:
    """Whether XLA-compiled subgraphs are faster: in a traced training step on a CPU.

    Eager calls would compile for shapes that occur once. For an `x` (…, 1, D) with one token per
    text, compilation takes longer than it saves.
    """
    if x is not None and _has_one_token(x):
        return False
    return bool(training) and not tf.executing_eagerly() and not _has_accelerators()


@functools.cache
def _has_accelerators() -> bool:
    return bool(tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("TPU"))


def _computation_dtype(dtype: tf.DType) -> tf.DType:
    return tf.float64 if dtype == tf.float64 else tf.float32


def _next_seed(dropout: Any) -> tf.Tensor:
    if not dropout.rate:
        return tf.zeros(2, tf.uint32)
    return seed_of_device(tf.cast(dropout.seed_generator.next(), tf.uint32))


def _apply_dropout(x: tf.Tensor, seed: tf.Tensor, rate: float) -> tf.Tensor:
    return x * tf.cast(kept(tf.shape(x), seed, rate), x.dtype) if rate else x


def _row_sums(x: tf.Tensor) -> tf.Tensor:
    """Sums (…, D) to (…, 1) by a matrix product, which XLA compiles and runs faster than a sum."""
    size = tf.shape(x)[-1]
    sums = tf.matmul(tf.reshape(x, (-1, size)), tf.ones((size, 1), x.dtype))
    return tf.reshape(sums, (*tf.unstack(tf.shape(x))[:-1], 1))


def _sum_over_rows(x: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Sums (…, D) over all axes but the last, to (D,)."""
    return tf.cast(tf.reduce_sum(x, axis=range(x.shape.rank - 1)), dtype)
