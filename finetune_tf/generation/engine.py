"""What the loops of generation need and TensorFlow and JAX do differently, in one place.

In a loop of TensorFlow, tensors grow by one token in each step. JAX compiles fixed shapes, so a
tensor that grows is a window there: it has room for all tokens from the start, filled with padding
at the beginning, and each new token pushes one place of padding out. As texts of different lengths
are padded at the beginning on every backend, nothing else has to know of it.
"""

import contextlib
import weakref
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from finetune_tf.base.keras_internals import ReadOnce
from finetune_tf.errors import ModelError
from finetune_tf.graph.traces import compiled_by_jax, traces_of

_MOST_STEPS = 2**32  # more tokens than any text has, so that no two samples share a seed
_MULTIPLE = 16  # JAX compiles once for each length of prompts, which are filled up to multiples
_STATIC = "static"  # a number for each value of which JAX compiles a function of its own


def has_windows() -> bool:
    """Whether tensors that grow are windows of a fixed size."""
    return keras.backend.backend() != "tensorflow"


def require_engine() -> None:
    """Raises a ModelError on backends that generate no text."""
    backend = keras.backend.backend()
    if backend not in ("tensorflow", "jax"):
        raise ModelError(
            f"Text is generated on TensorFlow and JAX, but Keras runs on {backend}. Set "
            "KERAS_BACKEND=tensorflow or KERAS_BACKEND=jax before Python starts."
        )


# Traced functions


def trace(model: keras.Model, key: tuple, function: Callable, signature: list) -> Callable:
    """Returns a traced function of a model, from the cache of the model if it is in there.

    Args:
        model: The model, which becomes the first argument of the function.
        key: Distinguishes the function from others of the model.
        function: What is traced.
        signature: The shapes and dtypes of its other arguments.
    """
    traces, key = traces_of(model), (*key, len(model.weights))
    if key not in traces:
        reference = weakref.ref(model)  # the trace must not keep the model alive
        make = _compiled if has_windows() else _concrete
        traces[key] = make(reference, function, signature)
    return traces[key]


def _concrete(reference: Callable, function: Callable, signature: list) -> Callable:
    import tensorflow as tf

    traced = tf.function(
        lambda *arguments: function(reference(), *arguments),
        input_signature=signature,
        autograph=False,
    )
    return traced.get_concrete_function()


def _compiled(reference: Callable, function: Callable, signature: list) -> Callable:
    static = [place for place, kind in enumerate(signature) if kind is _STATIC]
    return compiled_by_jax(reference, function, static)


def reading() -> contextlib.AbstractContextManager:
    """Returns the scope in which a traced function reads weights; see `ReadOnce`."""
    return contextlib.nullcontext() if has_windows() else ReadOnce()


def prompts() -> list:
    """Returns the signature of prompts: ids and mask."""
    return [_spec((None, None), "int32"), _spec((None, None), "int32")]


def scalar(dtype: str) -> Any:
    """Returns the signature of one number, which sizes of windows may depend on."""
    return _spec((), dtype) or _STATIC


def seeds() -> Any:
    """Returns the signature of the seed of samples."""
    return _spec((2,), "int64")


def kinds_of(tensors: Any, shapes: Any) -> list:
    """Returns the signature of a structure of tensors, flat, of which some axes grow."""
    if has_windows():
        return [None for _ in tensors]
    return keras.tree.map_structure_up_to(
        tensors, lambda tensor, shape: _spec(shape, tensor.dtype), tensors, shapes
    )


def _spec(shape: Any, dtype: Any) -> Any:
    if has_windows():
        return None
    import tensorflow as tf

    return tf.TensorSpec(shape, dtype)


def filled_length(length: int, most: int | None = None) -> int:
    """Returns the length to which prompts are filled up: one of a few, if each is compiled.

    Args:
        length: The length of the longest prompt.
        most: The highest number of places, or None.
    """
    wanted = -(-length // _MULTIPLE) * _MULTIPLE if has_windows() else length
    return wanted if most is None else max(length, min(wanted, most))


# Tensors that grow


def windowed(tensor: Any, room: Any, axis: int = 1, after: int = 0) -> Any:
    """Returns a tensor with room for so many tokens.

    Args:
        tensor: What is to grow.
        room: The number of tokens, a Python number where tensors are windows.
        axis: Which axis grows.
        after: The place at which the window begins.
    """
    if not has_windows():
        return tensor
    shape = list(tensor.shape)
    shape[axis] = room
    before, rest = ops.split(tensor, [after], axis=axis)
    return ops.concatenate([before, ops.zeros(shape, tensor.dtype), rest], axis=axis)


def without_room(tensor: Any, left: int) -> Any:
    """Returns a tensor (B, K) without the room that is left for so many tokens."""
    return tensor[:, left:] if has_windows() else tensor


def shortened(tensor: Any, axis: int = 1, after: int = 0) -> Any:
    """Returns a tensor that has grown by one token with the size of its window; see `windowed`."""
    if not has_windows():
        return tensor
    before, _, rest = ops.split(tensor, [after, after + 1], axis=axis)
    return ops.concatenate([before, rest], axis=axis)


def windowed_cache(cache: Any, room: Any, after: int) -> Any:
    """Returns a cache with room for all generated tokens but the last one; see `windowed`."""
    more = room - 1 if has_windows() else None
    return keras.tree.map_structure(lambda part: windowed(part, more, 2, after), cache)


def shortened_cache(cache: Any, after: int) -> Any:
    """Returns a cache that has grown by one token with the size of its window."""
    return keras.tree.map_structure(lambda part: shortened(part, 2, after), cache)


def appended(tensor: Any, column: Any) -> Any:
    """Returns texts (B, K) with one more token (B, 1)."""
    return shortened(ops.concatenate([tensor, column], axis=1))


def joined(before: Any, after: Any, count: Any) -> Any:
    """Returns rows (B, P) with the first tokens of other rows (B, T) behind them.

    Args:
        before: (B, P).
        after: (B, T).
        count: How many of the tokens; in a window, the others come first.
    """
    if not has_windows():
        return ops.concatenate([before, after[:, :count]], axis=1)
    whole = ops.concatenate([before, after], axis=1)
    return ops.roll(whole, after.shape[1] - count, axis=1)


def loop(goes_on: Callable, body: Callable, state: tuple, shapes: Any) -> Any:
    """Repeats a step.

    Args:
        goes_on: From the parts of the state to whether there is another step.
        body: From the parts of the state to the next state.
        state: The first state.
        shapes: The shapes of the state, with None for axes that grow.
    """
    if has_windows():
        import jax

        return jax.lax.while_loop(lambda now: goes_on(*now), lambda now: body(*now), state)
    import tensorflow as tf

    return tf.while_loop(goes_on, body, state, shapes)


def cache_shapes(cache: Any) -> Any:
    """Returns the shapes of cached keys and values, whose number of tokens grows."""
    return keras.tree.map_structure(
        lambda part: _tensor_shape((None, part.shape[1], None, part.shape[3])), cache
    )


def shapes_of(tensors: Any) -> Any:
    """Returns the shapes of tensors that do not grow."""
    return keras.tree.map_structure(lambda part: _tensor_shape(part.shape), tensors)


def growing(rank: int) -> Any:
    """Returns a shape of so many axes, all of which may grow."""
    return _tensor_shape((None,) * rank)


def _tensor_shape(shape: Any) -> Any:
    if has_windows():
        return None
    import tensorflow as tf

    return tf.TensorShape(shape)


# Numbers and choices


def least(one: Any, other: Any) -> Any:
    """Returns the lower of two sizes, as a Python number if both are."""
    is_known = isinstance(one, int) and isinstance(other, int)
    return min(one, other) if is_known else ops.minimum(one, other)


def at_least_0(size: Any) -> Any:
    """Returns a size, or 0 if it is negative, as a Python number if it is one."""
    return max(size, 0) if isinstance(size, int) else ops.maximum(size, 0)


def rows_of(tensor: Any, which: Any) -> Any:
    """Returns some entries of each row: (B, N, …) and (B, M) to (B, M, …)."""
    if has_windows():
        shape = (*which.shape, *(1 for _ in tensor.shape[2:]))
        return ops.take_along_axis(tensor, ops.reshape(which, shape), axis=1)
    import tensorflow as tf

    return tf.gather(tensor, which, batch_dims=1)


def best_of(scores: Any) -> Any:
    """Returns the place of the highest score in each row: (B,) int32 from (B, V)."""
    if has_windows():
        return ops.argmax(scores, axis=-1)
    import tensorflow as tf

    return tf.argmax(scores, axis=-1, output_type="int32")


def seed_array(seed: tuple[int, int]) -> np.ndarray:
    """Returns the seed of a call, and the index of its first prompt, as an array (2,)."""
    if has_windows():
        return np.asarray([number % 2**32 for number in seed], "uint32")
    return np.asarray(seed, "int64")


def seed_of_step(seed: Any, step: Any) -> Any:
    """Returns the seed of one step.

    Args:
        seed: (2,), from `seed_array`.
        step: Scalar, the number of generated tokens.
    """
    if has_windows():
        import jax

        key = jax.random.fold_in(jax.random.key(seed[0]), seed[1])
        return jax.random.fold_in(key, step)
    import tensorflow as tf

    return tf.stack([seed[0], seed[1] * _MOST_STEPS + tf.cast(step, tf.int64)])


def drawn(scores: Any, seed: Any) -> Any:
    """Draws a token for each row from the softmax of its scores: (B,) int32 from (B, V)."""
    if has_windows():
        import jax

        return ops.cast(jax.random.categorical(seed, scores, axis=-1), "int32")
    import tensorflow as tf

    return tf.random.stateless_categorical(scores, 1, seed, dtype="int32")[:, 0]


def gumbel_like(totals: Any, seed: Any) -> Any:
    """Returns noise of the Gumbel distribution in the shape and dtype of a tensor."""
    if has_windows():
        import jax

        # In float32, numbers near 1 are too coarse for tokens of low probability, unless "high".
        return jax.random.gumbel(seed, totals.shape, totals.dtype, mode="high")
    import tensorflow as tf

    # In float32, numbers near 1 are too coarse for tokens of low probability.
    uniform = tf.random.stateless_uniform(tf.shape(totals), seed, 1e-300, 1.0, tf.float64)
    return tf.cast(-tf.math.log(-tf.math.log(uniform)), totals.dtype)


def are_finite(logits: Any) -> Any:
    """Whether all logits are finite: a boolean scalar."""
    return ops.all(ops.isfinite(logits))
