"""Normalizations with exact second derivatives, and with a choice of the batch statistics.

MAML differentiates a gradient. TensorFlow's `tf.nn.moments`, by which Keras's own normalizations
compute a variance, stops the gradient at the mean. First derivatives are right all the same, since
that term is zero, but second derivatives are wrong. The fused batch normalization has no second
derivatives at all. Inside `exact_norms`, layers compute the same from a mean and a variance that
are written out.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import keras
from keras import ops

from finetune_tf.architectures import BatchNorm
from finetune_tf.base.keras_internals import all_layers
from finetune_tf.errors import ModelError

#: Which statistics batch normalization uses: those of the support set for the support set and for
#: the queries; those of each of the two for itself; or the stored ones.
Statistics = Literal["support", "batch", "stored"]

_BATCH_NORMS = (keras.layers.BatchNormalization, BatchNorm)
_OTHER_NORMS = (keras.layers.LayerNormalization, keras.layers.GroupNormalization)


@dataclass
class Moments:
    """The means and variances of batch normalizations, in the order of their calls.

    Attributes:
        given: Those to use; None to compute them from each input.
        found: Those that were used.
    """

    given: list[tuple[Any, Any]] | None = None
    found: list[tuple[Any, Any]] = field(default_factory=list)

    def of(self, x: Any, axes: list[int]) -> tuple[Any, Any]:
        """Returns the mean and the variance of the next call."""
        if self.given is None:
            mean, variance = moments(x, axes)
        else:
            mean, variance = self.given[len(self.found)]
        self.found.append((mean, variance))
        return mean, variance


def moments(x: Any, axes: list[int], keepdims: bool = False) -> tuple[Any, Any]:
    """Returns the mean and the variance over some axes, differentiable any number of times."""
    mean = ops.mean(x, axis=axes, keepdims=True)
    variance = ops.mean(ops.square(x - mean), axis=axes, keepdims=keepdims)
    return (mean if keepdims else ops.squeeze(mean, axes)), variance


def batch_norms(model: keras.Model) -> list[keras.layers.Layer]:
    """Returns the batch normalizations of a model."""
    found = {id(part): part for part in all_layers(model) if isinstance(part, _BATCH_NORMS)}
    return list(found.values())


def inexact_norms(model: keras.Model) -> list[keras.layers.Layer]:
    """Returns normalizations of Keras, and of subclasses, that `exact_norms` cannot replace."""
    norms = (*_BATCH_NORMS, *_OTHER_NORMS)
    found = {id(part): part for part in all_layers(model) if isinstance(part, norms)}
    return [part for part in found.values() if type(part) not in norms or _is_special(part)]


def check_statistics(statistics: Any) -> None:
    """Checks the choice of statistics.

    Raises:
        ModelError: If it is unknown.
    """
    if statistics not in get_args(Statistics):
        raise ModelError(
            f"statistics must be one of {', '.join(map(repr, get_args(Statistics)))}, "
            f"found {statistics!r}."
        )


@contextlib.contextmanager
def exact_norms(
    model: keras.Model, statistics: Statistics, given: list[tuple[Any, Any]] | None = None
) -> Iterator[Moments]:
    """Inside the block, the normalizations of a model have exact derivatives of any order.

    Dropout is off, and no stored statistics change.

    Args:
        model: The model.
        statistics: Where batch normalizations get their statistics; "stored" ignores `given`.
        given: The statistics of an earlier block, for each call of a batch normalization.

    Yields:
        The statistics that were used.
    """
    found = Moments(given)
    inexact = {id(part) for part in inexact_norms(model)}
    with contextlib.ExitStack() as stack:
        for part in {id(part): part for part in all_layers(model)}.values():
            if isinstance(part, keras.layers.Dropout) and part.rate:
                stack.enter_context(_replaced(part, "rate", 0.0))
            elif isinstance(part, _BATCH_NORMS) and statistics != "stored":
                call = _ours if isinstance(part, BatchNorm) else _batch
                stack.enter_context(_replaced(part, "call", _bound(call, part, found)))
                if isinstance(part, BatchNorm):  # a layer around it asks
                    stack.enter_context(_replaced(part, "reads_batch", lambda training: True))
            elif isinstance(part, BatchNorm):
                stack.enter_context(_replaced(part, "reads_batch", lambda training: False))
            elif id(part) not in inexact and isinstance(part, _OTHER_NORMS):
                is_layer = isinstance(part, keras.layers.LayerNormalization)
                call = _layer if is_layer else _group
                stack.enter_context(_replaced(part, "call", _bound(call, part)))
        yield found


def _is_special(part: keras.layers.Layer) -> bool:
    """Whether a layer has an option under which it computes something else."""
    return any(getattr(part, name, False) for name in ("rms_scaling", "renorm", "synchronized"))


def _bound(function: Callable, *arguments: Any) -> Callable:
    def call(x: Any, training: bool | None = None, mask: Any = None) -> Any:
        return function(*arguments, x)

    return call


@contextlib.contextmanager
def _replaced(layer: keras.layers.Layer, name: str, value: Any) -> Iterator[None]:
    """Inside the block, an attribute of a layer has another value."""
    attributes = vars(layer)  # not setattr, by which Keras would track the value
    had, before = name in attributes, attributes.get(name)
    attributes[name] = value
    try:
        yield
    finally:
        del attributes[name]
        if had:
            attributes[name] = before


def _wide(x: Any) -> Any:
    return ops.cast(x, keras.backend.result_type(x.dtype, "float32"))


def _batch(part: keras.layers.BatchNormalization, statistics: Moments, x: Any) -> Any:
    x = _wide(x)
    axis = part.axis % x.ndim
    mean, variance = statistics.of(x, [i for i in range(x.ndim) if i != axis])
    out = ops.batch_normalization(
        x,
        mean,
        variance,
        axis=axis,
        offset=ops.cast(part.beta, x.dtype) if part.center else None,
        scale=ops.cast(part.gamma, x.dtype) if part.scale else None,
        epsilon=part.epsilon,
    )
    return ops.cast(out, part.compute_dtype)


def _ours(part: BatchNorm, statistics: Moments, x: Any) -> Any:
    x = _wide(x)
    mean, variance = statistics.of(x, list(range(x.ndim - 1)))
    scale = part.gamma * ops.rsqrt(variance + part.get_config()["epsilon"])
    return ops.cast((x - mean) * scale + part.beta, part.compute_dtype)


def _layer(part: keras.layers.LayerNormalization, x: Any) -> Any:
    x = _wide(x)
    axes = sorted(axis % x.ndim for axis in part.axis)
    mean, variance = moments(x, axes, keepdims=True)
    shape = [x.shape[i] if i in axes else 1 for i in range(x.ndim)]
    out = (x - mean) * ops.rsqrt(variance + part.epsilon)
    if part.scale:
        out = out * ops.reshape(ops.cast(part.gamma, x.dtype), shape)
    if part.center:
        out = out + ops.reshape(ops.cast(part.beta, x.dtype), shape)
    return ops.cast(out, part.compute_dtype)


def _group(part: keras.layers.GroupNormalization, x: Any) -> Any:
    x = _wide(x)
    shape, axis = ops.shape(x), part.axis % x.ndim
    channels = x.shape[axis]
    split = [*shape[:axis], part.groups, channels // part.groups, *shape[axis + 1 :]]
    grouped = ops.reshape(x, split)
    axes = [i for i in range(1, grouped.ndim) if i != axis]
    mean, variance = moments(grouped, axes, keepdims=True)
    out = ops.reshape((grouped - mean) * ops.rsqrt(variance + part.epsilon), shape)
    along = [channels if i == axis else 1 for i in range(x.ndim)]
    if part.scale:
        out = out * ops.reshape(ops.cast(part.gamma, x.dtype), along)
    if part.center:
        out = out + ops.reshape(ops.cast(part.beta, x.dtype), along)
    return ops.cast(out, part.compute_dtype)
