"""Mistakes in what a fit is given, told as such instead of in Keras's words."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from finetune_tf.base.keras_internals import all_layers, rate_of, sync_state
from finetune_tf.base.values import asserted, outside
from finetune_tf.data import Examples
from finetune_tf.errors import DataError, DataTypeError, FinetuneError, ModelError
from finetune_tf.messages import one_line
from finetune_tf.tasks import Task

# What takes texts as they are, by the method of Keras that was called instead.
_FOR_TEXTS = {
    "predict": ", or call ft.predict(model, texts)",
    "predict_on_batch": ", or call ft.predict(model, texts)",
    "evaluate": ", or call ft.evaluate(model, examples)",
}

_PLAIN_RATE = (
    "Leave the callback out, or give a number as the rate: keras.optimizers.Adam(2e-5), or "
    "ft.presets.cross_entropy(learning_rate=2e-5, schedule='constant')."
)


def check_data(call: str, x: Any, validation_data: Any = None) -> None:
    """Refuses what no model can take before it is encoded and batched.

    Args:
        call: The method that was called, such as "fit".
        x: Its first argument.
        validation_data: As for `fit`.

    Raises:
        DataTypeError: If `x` or `validation_data` are `Examples` or texts, or nothing.
        DataError: If they have no rows.
    """
    shuffle = ", shuffle=True" if call == "fit" else ""
    for name, data, options in (
        ("train" if call == "fit" else "data", x, shuffle),
        ("validation", validation_data, ""),
    ):
        if isinstance(data, Examples):
            raise DataTypeError(
                f"{call} takes batches, found {data!r}. Encode the texts: "
                f"{name}.batches(model, batch_size=32{options}){_FOR_TEXTS.get(call, '')}."
            )
        if isinstance(data, tuple) and data:
            data = data[0]
        if data is None and name == "validation":
            continue
        if data is None or (isinstance(data, dict | list | tuple) and not data):
            raise DataTypeError(f"{call} takes batches of token ids, found {data}.")
        if isinstance(data, dict):
            data = data.get("input_ids", next(iter(data.values()), None))
        if isinstance(data, np.ndarray) and data.ndim and not len(data):
            raise DataError(f"{call} takes batches of token ids, found an array without rows.")
        if is_text(data) or (isinstance(data, list | tuple) and data and is_text(data[0])):
            batches = f"{name}.batches(model, batch_size=32{options})"
            if call.endswith("on_batch"):
                batches = f"{'' if call.startswith('predict') else '*'}next(iter({batches}))"
            raise DataTypeError(
                f"{call} takes batches of token ids, found texts. Encode them: {name} = "
                f"ft.data.from_arrays(texts, labels), then {call}({batches})"
                f"{_FOR_TEXTS.get(call, '')}."
            )


def rate_setters(callbacks: Any) -> list[str]:
    """Names of the callbacks of Keras that set the rate."""
    kinds = keras.callbacks.ReduceLROnPlateau | keras.callbacks.LearningRateScheduler
    return [type(c).__name__ for c in keras.tree.flatten(callbacks) if isinstance(c, kinds)]


def check_rate_setters(optimizer: Any, callbacks: Any) -> None:
    """Refuses callbacks that would set a rate that a schedule of Keras decides.

    Keras raises when the callback first sets it, which may be hours later.

    Raises:
        ModelError: If there is such a callback, with the line to write.
    """
    rate = rate_of(optimizer)
    setters = rate_setters(callbacks)
    if setters and isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        raise ModelError(
            f"{setters[0]} sets the rate, but the optimizer follows the schedule "
            f"{type(rate).__name__}, and Keras refuses both together. {_PLAIN_RATE}"
        )


@contextlib.contextmanager
def explaining() -> Iterator[None]:
    """Tells errors of the backend inside the block in the words of this module."""
    try:
        yield
    except Exception as error:
        found = explained(error)
        if found is None:
            raise
        raise found from None


def explained(error: Exception) -> FinetuneError | None:
    """What an error of the backend during a fit means, or None if it is not known."""
    if (found := asserted(error)) is not None:
        return found
    if "ResourceExhausted" in type(error).__name__:
        return ModelError(
            "Memory ran out. Use a smaller batch_size in batches(), a smaller max_length "
            "(the longest texts decide), or a smaller batch with accumulate=4 in the preset, "
            f"which averages four of them into a step. ({str(error).splitlines()[0]})"
        )
    # Only TensorFlow on a CPU looks; elsewhere the loss becomes NaN.
    label = re.search(r"label value of (-?\d+) which is outside .* \[0, (\d+)\)", str(error))
    if label:
        return DataError(
            outside(int(label[1]), int(label[2]), Task.target_title, Task.target_advice)
        )
    row = re.search(r"indices\[.*\] = (-?\d+) is not in \[0, (\d+)\)", str(error))
    if row:  # only a CPU looks here, too, and only at batches that are not checked beforehand
        return ModelError(
            f"A number among the inputs is {row[1]}, but the model's table has the rows 0 to "
            f"{int(row[2]) - 1}. Encode the texts with the model's own tokenizer, "
            "model.tokenizer; after adding words to it, call "
            "model.resize_token_embeddings(len(model.tokenizer))."
        )
    if str(error).startswith("Data cardinality is ambiguous"):
        sizes = re.findall(r"'(\w+)' sizes: ([\d, ]+)", str(error))
        told = "; ".join(f"{name} {size}" for name, size in sizes)
        return DataError(
            f"Inputs, targets and sample weights have different numbers of rows: {told}. Give one "
            "target, and one weight, for each row."
        )
    if str(error).startswith("Unrecognized data type"):
        return DataTypeError(
            "The model takes batches of token ids: what examples.batches(model) gives, a "
            "tf.data.Dataset, or arrays of ids by the names of the inputs. "
            f"({one_line(str(error))[:120]})"
        )
    if "learning rate is not settable" in str(error):
        return ModelError(
            "A callback sets the rate, but the optimizer follows a schedule of Keras, and Keras "
            f"refuses both together. {_PLAIN_RATE}"
        )
    if "EagerTensor' object has no attribute 'assign'" in str(error):
        return ModelError(
            "A callback calls learning_rate.assign(rate), but the rate is computed by a schedule. "
            "Write optimizer.learning_rate = rate, or give the preset schedule='constant'."
        )
    return None


def non_finite_loss(
    model: keras.Model, loss: float, epoch: int, first: int, last: int
) -> ModelError:
    """The error of a fit whose loss is no number.

    Args:
        model: Being fitted.
        loss: NaN or infinity.
        epoch: Counted from 1.
        first: The first step of the epoch that it can have come from, counted from 1.
        last: The last such step; more than the first with `steps_per_execution`.
    """
    steps = f"step {first}" if first == last else f"one of the steps {first} to {last}"
    first_of_all = epoch == last == 1
    advice = "" if first_of_all else "Lower the learning rate (1e-5 to 5e-5 is usual), or check "
    return ModelError(
        f"The loss is {loss} at {steps} of epoch {epoch}{_rate(model)}, so the fit was stopped. "
        f"{_state_of_weights(model)} {advice or 'Check '}that labels, sample weights and the "
        "weights of the model are finite numbers"
        f"{' (no rate has had an effect yet)' if first_of_all else ''}{_instead_of_float16(model)}."
    )


def non_finite_validation(model: keras.Model, loss: float, epoch: int) -> ModelError:
    """The error of a fit whose loss is finite, but not over its validation data."""
    return ModelError(
        f"The loss over the validation data is {loss} after epoch {epoch}{_rate(model)}, and that "
        f"over the training data is finite, so the fit was stopped. {_state_of_weights(model)} "
        "Check that labels and sample weights of the validation data are finite numbers"
        f"{_instead_of_float16(model)}, or lower the learning rate."
    )


def check_loss(model: keras.Model, call: str, logs: Any) -> None:
    """Refuses a loss that is no number.

    Args:
        model: That was called.
        call: The method that gave `logs`.
        logs: What Keras's `evaluate` and its kin return: the loss, a list that begins with it, or
            a dict.

    Raises:
        ModelError: If the loss is NaN or infinite.
    """
    first = logs.get("loss") if isinstance(logs, dict) else logs
    first = first[0] if isinstance(first, list | tuple) and first else first
    if isinstance(first, float | np.floating) and not np.isfinite(first):
        raise ModelError(
            f"The loss that {call} found is {first}. {_state_of_weights(model)} Check that labels "
            f"and sample weights are finite numbers{_instead_of_float16(model)}."
        )


def check_weights(model: keras.Model) -> None:
    """Refuses weights that the last step of a fit made NaN or infinite.

    Raises:
        ModelError: If there are some.
    """
    if _ruined(model):
        raise ModelError(
            f"The last step of the fit ruined the model{_rate(model)}. {_state_of_weights(model)} "
            f"Lower the learning rate (1e-5 to 5e-5 is usual){_instead_of_float16(model)}."
        )


def refuse_ruined(model: keras.Model, call: str) -> None:
    """Refuses to write a model whose weights are no numbers.

    Args:
        model: To be written.
        call: What is done, such as "Saving".

    Raises:
        ModelError: If a weight is NaN or infinite, which every reader would refuse.
    """
    if ruined := _ruined(model, model.weights):
        raise ModelError(
            f"{call} wrote nothing: {len(ruined)} of the model's {len(model.weights)} variables "
            f"hold NaN or infinity, {ruined[0]} among them. Load the model again, and train with a "
            f"lower learning rate{_instead_of_float16(model)}."
        )


def _ruined(model: keras.Model, variables: list | None = None) -> list[str]:
    sync_state(model)
    return [
        variable.path
        for variable in (model.trainable_variables if variables is None else variables)
        # A sum is one pass without a copy. It is finite only where all its parts are, and of
        # finite ones it may be infinite.
        if not bool(keras.ops.isfinite(keras.ops.sum(variable)))
        and not bool(keras.ops.all(keras.ops.isfinite(variable)))
    ]


def _state_of_weights(model: keras.Model) -> str:
    ruined, learning = _ruined(model), len(model.trainable_variables)
    if not ruined:
        return "The weights are finite numbers."
    return (
        f"{len(ruined)} of the {learning} variables that learn hold NaN or infinity by now, "
        f"{ruined[0]} among them: load the model again."
    )


def _rate(model: keras.Model) -> str:
    try:
        return f", with a learning rate of {float(model.optimizer.learning_rate):g}"
    except AttributeError:  # a MultiOptimizer has several
        return ""


def _instead_of_float16(model: keras.Model) -> str:
    kinds = {layer.compute_dtype for layer in all_layers(model)}
    if "float16" not in kinds:
        return ""
    return ", or compute in bfloat16 instead of float16: ft.load(…, dtype='mixed_bfloat16')"


def is_text(value: Any) -> bool:
    """Whether a value is a text or an array of texts."""
    dtype = str(getattr(value, "dtype", type(value).__name__))
    return dtype in ("str", "object") or "string" in dtype or dtype.startswith(("<U", "|S"))
