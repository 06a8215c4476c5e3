"""Compiling the training step as a whole by XLA, where all batches have one shape."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from finetune_tf.messages import say
from finetune_tf.training.devices import accelerator_names

# The steps of a fit from which on compiling pays: it took 77 s on an H200, and saved 12 ms of a
# step with 32 x 24 tokens and 13 ms of one with 32 x 128 (docs/performance.md).
WORTH_COMPILING = 8000


@contextlib.contextmanager
def compiled_where_it_pays(
    model: keras.Model, data: Any, arguments: Mapping[str, Any]
) -> Iterator[None]:
    """Compiles the step of a fit as a whole if that pays and nobody has decided about it.

    That is so on TensorFlow with a GPU or TPU, for a long fit whose batches have one shape. On a
    CPU, compiled parts of the step are faster. JAX always compiles.

    Args:
        model: A compiled model with `is_jit_chosen`, whether `compile` was told.
        data: The data of the fit.
        arguments: Other arguments of `fit`.
    """
    is_open = keras.backend.backend() == "tensorflow" and not getattr(model, "is_jit_chosen", True)
    # Somebody may have set the attribute after `compile`.
    pays = is_open and not model.jit_compile and _pays(model, data, arguments)
    if is_open and pays != getattr(model, "is_step_compiled", False):
        model.train_function = None
        model.is_step_compiled = pays
    if not pays:
        yield
        return
    say(
        "XLA compiles the training step, because all batches have one shape and the fit is long; "
        "the first step takes a minute or more. compile(jit_compile=False) prevents this."
    )
    model.jit_compile = True
    try:
        yield
    finally:
        # Evaluations and predictions have other shapes, each of which would be compiled.
        model.jit_compile = False
        model.test_function = model.predict_function = None


def _pays(model: keras.Model, data: Any, arguments: Mapping[str, Any]) -> bool:
    validation = arguments.get("validation_data")
    return (
        bool(accelerator_names())
        and model.number_of_devices == 1
        and not model.objectives  # which may contain what XLA cannot compile
        and not model.task.scores_tokens  # whose step needs no logits if it is not compiled
        and _has_one_shape(data)
        and (validation is None or _has_one_shape(validation))
        and _steps(data, arguments) >= WORTH_COMPILING
    )


def _has_one_shape(data: Any) -> bool:
    specs = keras.tree.flatten(getattr(data, "element_spec", None))
    shapes = [getattr(spec, "shape", None) for spec in specs]
    return all(shape is not None and None not in tuple(shape) for shape in shapes)


def _steps(data: Any, arguments: Mapping[str, Any]) -> int:
    """Returns the number of steps of a fit, 0 if it is not known."""
    epochs = arguments.get("epochs", 1) - arguments.get("initial_epoch", 0)
    try:
        return epochs * (arguments.get("steps_per_epoch") or len(data))
    except TypeError:  # a dataset of unknown length
        return 0
