"""Mistakes in what a fit is given, told as such instead of in Keras's words."""

import re
from typing import Any

from finetune_tf.data import Examples
from finetune_tf.errors import DataError, DataTypeError, FinetuneError, ModelError
from finetune_tf.values import outside


def check_fit_data(x: Any, validation_data: Any) -> None:
    """Refuses what no model can take before it is encoded and batched.

    Raises:
        DataTypeError: If `x` or `validation_data` are `Examples`, or `x` are texts.
    """
    for data, call in (
        (x, "train.batches(model, batch_size=32, shuffle=True)"),
        (validation_data, "validation.batches(model, batch_size=32)"),
    ):
        if isinstance(data, Examples):
            raise DataTypeError(f"fit takes batches, found {data!r}. Encode the texts: {call}.")
    if is_text(x) or (isinstance(x, list | tuple) and x and is_text(x[0])):
        raise DataTypeError(
            "fit takes batches of token ids, found texts. Encode them: train = "
            "ft.data.from_arrays(texts, labels), then "
            "fit(train.batches(model, batch_size=32, shuffle=True))."
        )


def explained(error: Exception) -> FinetuneError | None:
    """What an error of the backend during a fit means, or None if it is not known."""
    if "ResourceExhausted" in type(error).__name__:
        return ModelError(
            "Memory ran out. Use a smaller batch_size in batches(), a smaller max_length "
            "(the longest texts decide), or a smaller batch with accumulate=4 in the preset, "
            f"which averages four of them into a step. ({str(error).splitlines()[0]})"
        )
    # Only TensorFlow on a CPU looks; elsewhere the loss becomes NaN.
    label = re.search(r"label value of (-?\d+) which is outside .* \[0, (\d+)\)", str(error))
    if label:
        return DataError(outside(int(label[1]), int(label[2])))
    return None


def is_text(value: Any) -> bool:
    """Whether a value is a text or an array of texts."""
    dtype = str(getattr(value, "dtype", type(value).__name__))
    return dtype in ("str", "object") or "string" in dtype or dtype.startswith(("<U", "|S"))
