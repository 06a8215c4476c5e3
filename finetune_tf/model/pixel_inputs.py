"""Validation of the input of image models: `pixel_values`, levels from 0 to 255."""

from typing import Any

import keras
from keras import ops

from finetune_tf.architectures import PIXELS
from finetune_tf.base.values import check_range, dtype_of
from finetune_tf.data.encodings import ENDS, LABELS
from finetune_tf.errors import ModelError

_ADVICE = "ft.predict(model, …) and Examples.batches(model) prepare images and videos."
# By the number of axes: those of images, and those of clips.
_AXES = {4: "batch, height, width, channels", 5: "batch, frames, height, width, channels"}


def complete_pixels(inputs: Any, known: dict[str, Any]) -> dict[str, Any]:
    """Validates the images of a call.

    Args:
        inputs: Levels (batch, height, width, channels) uint8, or (batch, frames, height, width,
            channels) for a model of videos, or a dict with them as `pixel_values`.
        known: The model's symbolic inputs by name.

    Returns:
        A dict of the input by its name, uint8.

    Raises:
        ModelError: If there is no such input, or its dtype, its shape or a value is wrong.
    """
    pixels = pixels_of(inputs)
    shape = tuple(known[PIXELS].shape)
    found = tuple(getattr(pixels, "shape", ()))
    if len(found) != len(shape) or any(
        None not in pair and pair[0] != pair[1] for pair in zip(found[1:], shape[1:], strict=True)
    ):
        raise ModelError(
            f"{PIXELS} must have the shape ({_AXES[len(shape)]}), here (batch, "
            f"{', '.join(map(str, shape[1:]))}), found {found or type(pixels).__name__}. {_ADVICE}"
        )
    check_pixels(pixels)
    if keras.utils.is_keras_tensor(pixels):
        return {PIXELS: pixels}
    if dtype_of(pixels) != "uint8":
        # The values of a traced call are not known here: clipped, they do not wrap around.
        pixels = ops.clip(pixels, 0, 255)
    return {PIXELS: ops.cast(pixels, "uint8")}


def check_pixels(inputs: Any) -> None:
    """Checks the dtype and the values of images; see `values.check_range` for symbolic tensors.

    Args:
        inputs: As for `complete_pixels`.

    Raises:
        ModelError: If they are not integers from 0 to 255.
    """
    pixels = pixels_of(inputs)
    dtype = dtype_of(pixels)
    if dtype is None or "int" not in dtype:
        raise ModelError(
            f"{PIXELS} must be levels from 0 to 255 as integers (uint8), found "
            f"{dtype or 'no numbers'}. The model scales and normalises them itself, as its "
            f"checkpoint requires. {_ADVICE}"
        )
    if dtype != "uint8" and not keras.utils.is_keras_tensor(pixels):
        message = f"{PIXELS} must be levels from 0 to 255, found {{found}}. {_ADVICE}"
        check_range(pixels, 0, 255, message, ModelError)


def split_inputs(inputs: Any) -> tuple[dict, dict]:
    """Returns the images and the other inputs of a model that reads both.

    Args:
        inputs: A dict with `pixel_values` and `input_ids`.

    Raises:
        ModelError: If one of the two is missing.
    """
    missing = [n for n in (PIXELS, "input_ids") if not hasattr(inputs, "keys") or n not in inputs]
    if missing:
        found = ", ".join(map(str, inputs)) if hasattr(inputs, "keys") else type(inputs).__name__
        raise ModelError(
            f"The model reads images with texts and expects the inputs {PIXELS} and input_ids, "
            f"found {found or 'none'}. Use Examples.batches(model) or ft.predict(model, texts, "
            "image=…)."
        )
    images = {PIXELS: inputs[PIXELS]}
    return images, {name: value for name, value in inputs.items() if name != PIXELS}


def pixels_of(inputs: Any) -> Any:
    """Returns the images among the inputs of a call.

    Args:
        inputs: As for `complete_pixels`.

    Raises:
        ModelError: If there are none, or other inputs.
    """
    if not hasattr(inputs, "keys"):
        if isinstance(inputs, list | tuple | str | bytes):
            raise ModelError(
                f"The model expects {PIXELS} (batch, height, width, channels), found a "
                f"{type(inputs).__name__}. {_ADVICE}"
            )
        return inputs
    others = [str(n) for n in inputs if n not in (PIXELS, *LABELS, *ENDS)]
    if PIXELS not in inputs or others:
        hint = " These are inputs of a model of texts." if "input_ids" in inputs else ""
        raise ModelError(
            f"The model reads images and expects the input {PIXELS}, found "
            f"{', '.join(map(str, inputs)) or 'none'}.{hint} {_ADVICE}"
        )
    return inputs[PIXELS]
