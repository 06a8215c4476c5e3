"""Optimizers get whole gradients: summed over devices and over the places where a token stands.

Keras clips, counts and squares what one device computed of its part of a batch, and adds up the
devices' gradients afterwards. The norm of a part is not the norm of the whole, so training on two
devices would not be training on one. A token that occurs twice in a batch stands twice in
TensorFlow's gradient of an embedding table, and Keras takes each of the two for a gradient of its
own. Both sums are therefore made before an optimizer sees a gradient.
"""

import functools
from collections.abc import Iterator
from typing import Any

import keras

from finetune_tf import kernels
from finetune_tf.base.keras_internals import take_summed_gradients, wrapped_optimizers
from finetune_tf.errors import ModelError


def give_whole_gradients(optimizer: Any) -> None:
    """Has an optimizer sum gradients over devices and repeated tokens before it does anything else.

    It is done to this one instance, so that any Keras optimizer can be used. JAX has whole
    gradients from the start.

    Args:
        optimizer: A Keras optimizer, also one that wraps others. Doing it twice changes nothing.
    """
    if keras.backend.backend() != "tensorflow":
        return
    for inner in wrapped_optimizers(optimizer):
        inner.__dict__.pop("apply", None)  # the outermost one sums, and only it
    optimizer.apply = functools.partial(_apply, optimizer)


def check_devices(optimizer: Any, devices: int, **compiled: Any) -> None:
    """Refuses what Keras cannot do on several devices, where its errors do not say so.

    Args:
        optimizer: Of the model.
        devices: How many there are.
        **compiled: Other arguments of `compile`.

    Raises:
        ModelError: If something is asked for that works on one device only.
    """
    if devices == 1:
        return
    given = [
        ("accumulate (gradient_accumulation_steps)", "gradient_accumulation_steps"),
        ("ema_overwrite_frequency", "ema_overwrite_frequency"),
    ]
    inner = list(leaves(optimizer))
    refused = [what for what, name in given if any(getattr(leaf, name, None) for leaf in inner)]
    if (compiled.get("steps_per_execution") or 1) != 1:
        refused.append("steps_per_execution")
    if compiled.get("jit_compile") is True:
        refused.append("jit_compile=True")
    if refused:
        raise ModelError(
            f"Keras trains on one device only with {' and '.join(refused)}, but the model was made "
            f"for {devices}. Leave it out, or make the model outside of the strategy's scope."
        )


def _apply(optimizer: Any, grads: Any, trainable_variables: Any = None) -> None:
    """Stands in the place of `optimizer.apply`."""
    if not optimizer.built and trainable_variables is not None:
        with keras.name_scope(optimizer.name, caller=optimizer):
            optimizer.build(list(trainable_variables))
    inner = list(leaves(optimizer))
    for leaf in inner:
        take_summed_gradients(leaf)
    # What is done to a gradient as a whole does not work on slices of used rows everywhere.
    whole = optimizer not in inner or any(
        leaf.gradient_accumulation_steps
        or leaf.clipnorm
        or leaf.clipvalue
        or leaf.loss_scale_factor
        for leaf in inner
    )
    grads = kernels.summed_over_devices(list(grads))
    grads = [g if g is None else kernels.summed_gradient(g, whole) for g in grads]
    type(optimizer).apply(optimizer, grads, trainable_variables)


def leaves(optimizer: Any) -> Iterator[Any]:
    """The optimizers that update variables, inside one that may wrap others."""
    inside = wrapped_optimizers(optimizer)
    for inner in inside:
        yield from leaves(inner)
    if not inside:
        yield optimizer
