"""Sums gradients over devices and repeated tokens before an optimizer uses them.

Keras clips, accumulates and squares the gradient that each device computes for its part of a
batch, and sums over the devices afterwards. The norm of a part differs from the norm of the sum, so
training on two devices would differ from training on one. For a token that occurs twice in a batch,
TensorFlow's sparse gradient (IndexedSlices) of the embedding table has two entries, which Keras
treats as two separate gradients. Both sums are therefore computed first.
"""

import functools
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import keras

from finetune_tf import kernels
from finetune_tf.base.keras_internals import take_summed_gradients, wrapped_optimizers
from finetune_tf.errors import ModelError


def give_whole_gradients(optimizer: Any) -> None:
    """Makes an optimizer sum gradients over devices and repeated tokens before anything else.

    Only `apply` of this instance is replaced, so this works with any Keras optimizer. On JAX,
    gradients are complete already, and nothing changes.

    Args:
        optimizer: A Keras optimizer, which may wrap others. A second call has no effect.
    """
    if keras.backend.backend() != "tensorflow":
        return
    for inner in wrapped_optimizers(optimizer):
        inner.__dict__.pop("apply", None)  # only the outermost optimizer sums
    optimizer.apply = functools.partial(_apply_summed, optimizer)


def sums_gradients(optimizer: Any) -> bool:
    """Returns whether an optimizer sums gradients as `give_whole_gradients` makes it."""
    return getattr(vars(optimizer).get("apply"), "func", None) is _apply_summed


def observe(optimizer: Any, observer: Callable[[Any, list, list], None] | None) -> None:
    """Makes an optimizer show its gradients to a function when a training step is traced.

    Args:
        optimizer: An optimizer that sums gradients.
        observer: Called with the optimizer, the summed gradients and their variables; None for no
            function.
    """
    _OBSERVERS.pop(optimizer, None)
    if observer is not None:
        _OBSERVERS[optimizer] = observer


def observer_of(optimizer: Any) -> Callable | None:
    """Returns the function that an optimizer shows its gradients to, or None."""
    return _OBSERVERS.get(optimizer)


# Not attributes of the optimizers, because Keras tracks and saves those.
_OBSERVERS: "weakref.WeakKeyDictionary[Any, Callable]" = weakref.WeakKeyDictionary()


def check_devices(optimizer: Any, devices: int, **compiled: Any) -> None:
    """Raises a clear error for options that Keras supports on a single device only.

    Args:
        optimizer: The optimizer of the model.
        devices: The number of devices.
        **compiled: Other arguments of `compile`.

    Raises:
        ModelError: If there are several devices and such an option is used.
    """
    if devices == 1:
        return
    options = [
        ("accumulate (gradient_accumulation_steps)", "gradient_accumulation_steps"),
        ("ema_overwrite_frequency", "ema_overwrite_frequency"),
    ]
    inner = list(leaves(optimizer))
    unsupported = [
        title for title, name in options if any(getattr(leaf, name, None) for leaf in inner)
    ]
    if (compiled.get("steps_per_execution") or 1) != 1:
        unsupported.append("steps_per_execution")
    if compiled.get("jit_compile") is True:
        unsupported.append("jit_compile=True")
    if unsupported:
        raise ModelError(
            f"Keras supports {' and '.join(unsupported)} on one device only, but the model was "
            f"created for {devices} devices. Leave the option out, or create the model outside of "
            "the scope of the strategy."
        )


def _apply_summed(optimizer: Any, grads: Any, trainable_variables: Any = None) -> None:
    """Replaces `optimizer.apply`."""
    if not optimizer.built and trainable_variables is not None:
        with keras.name_scope(optimizer.name, caller=optimizer):
            optimizer.build(list(trainable_variables))
    inner = list(leaves(optimizer))
    for leaf in inner:
        take_summed_gradients(leaf)
    # Some operations on whole gradients do not support IndexedSlices.
    dense = optimizer not in inner or any(
        leaf.gradient_accumulation_steps
        or leaf.clipnorm
        or leaf.clipvalue
        or leaf.loss_scale_factor
        for leaf in inner
    )
    grads = kernels.summed_over_devices(list(grads))
    grads = [g if g is None else kernels.summed_gradient(g, dense) for g in grads]
    if trainable_variables is not None and (observer := observer_of(optimizer)) is not None:
        observer(optimizer, grads, list(trainable_variables))
    type(optimizer).apply(optimizer, grads, trainable_variables)


def leaves(optimizer: Any) -> Iterator[Any]:
    """Yields the innermost optimizers, those that update variables."""
    wrapped = wrapped_optimizers(optimizer)
    for inner in wrapped:
        yield from leaves(inner)
    if not wrapped:
        yield optimizer
