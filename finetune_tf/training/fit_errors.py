"""Clear error messages for common mistakes in `fit`, `evaluate` and `predict`."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from finetune_tf.base.keras_internals import all_layers, rate_of, sync_state
from finetune_tf.base.labels import Labels, has_no_names
from finetune_tf.base.values import asserted, outside
from finetune_tf.data import Examples
from finetune_tf.errors import DataError, DataTypeError, FinetuneError, ModelError
from finetune_tf.messages import one_line, say
from finetune_tf.tasks import Task

# Functions that accept texts, by the Keras method that was called instead.
_TEXT_ALTERNATIVES = {
    "predict": ", or call ft.predict(model, texts)",
    "predict_on_batch": ", or call ft.predict(model, texts)",
    "evaluate": ", or call ft.evaluate(model, examples)",
}

_FIXED_RATE_ADVICE = (
    "Leave the callback out, or use a fixed learning rate: keras.optimizers.Adam(2e-5) or "
    "ft.presets.cross_entropy(learning_rate=2e-5, schedule='constant')."
)

_UNKNOWN = -2  # tf.data.UNKNOWN_CARDINALITY


def check_data(call: str, x: Any, validation_data: Any = None) -> None:
    """Rejects data that has to be encoded and batched first.

    Args:
        call: The method that was called, such as "fit".
        x: The first argument of the method.
        validation_data: As for `fit`.

    Raises:
        DataTypeError: If `x` or `validation_data` are `Examples` or texts, or are missing.
        DataError: If they are empty arrays.
    """
    shuffle = ", shuffle=True" if call == "fit" else ""
    for name, data, options in (
        ("train" if call == "fit" else "data", x, shuffle),
        ("validation", validation_data, ""),
    ):
        if isinstance(data, Examples):
            advice = "Prepare the images" if "image" in data.columns else "Encode the texts"
            raise DataTypeError(
                f"{call} expects batches, found {data!r}. {advice}: "
                f"{name}.batches(model, batch_size=32{options}){_TEXT_ALTERNATIVES.get(call, '')}."
            )
        if isinstance(data, tuple) and data:
            data = data[0]
        if data is None and name == "validation":
            continue
        if data is None or (isinstance(data, dict | list | tuple) and not data):
            raise DataTypeError(f"{call} expects batches of token ids, found {data}.")
        if isinstance(data, dict):
            data = data.get("input_ids", next(iter(data.values()), None))
        if isinstance(data, np.ndarray) and data.ndim and not len(data):
            raise DataError(f"{call} expects batches of token ids, found an empty array.")
        if is_text(data) or (isinstance(data, list | tuple) and data and is_text(data[0])):
            batches = f"{name}.batches(model, batch_size=32{options})"
            if call.endswith("on_batch"):
                batches = f"{'' if call.startswith('predict') else '*'}next(iter({batches}))"
            raise DataTypeError(
                f"{call} expects batches of token ids, found texts. Encode them: {name} = "
                f"ft.data.from_arrays(texts, labels), then {call}({batches})"
                f"{_TEXT_ALTERNATIVES.get(call, '')}."
            )


def check_labels(model: Any, *data: Any) -> None:
    """Rejects batches that were made for a model whose classes have other numbers.

    Args:
        model: The model, of `load`.
        *data: What a method got: batches, or anything else, which is not checked.

    Raises:
        DataError: If batches are for other labels, or for the same ones in another order.
    """
    if model.labels is None or model.kind not in ("classes", "several"):
        return
    for batches in data:
        made_for = getattr(batches, "labels", None)
        # Encodings have an attribute of this name, too: their targets.
        if not isinstance(made_for, Labels) or any(map(has_no_names, (made_for, model.labels))):
            continue
        if tuple(made_for) != tuple(model.labels):
            raise DataError(
                f"The batches were made for a model with the labels {made_for.listed()}, but this "
                f"one has {model.labels.listed()}, so class numbers would mean other labels. Make "
                "them for this model: train.batches(model, …)."
            )


def say_order(x: Any) -> None:
    """Says that batches have their rows in the order of the classes, and are not shuffled.

    Args:
        x: The data of `fit`.
    """
    if getattr(x, "is_sorted", False):
        say(
            "The rows of these batches are in the order of their classes, so that most batches "
            "have a single class, and the model learns one after the other. Add shuffle=True: "
            "train.batches(model, shuffle=True)."
        )


def check_length(x: Any, devices: int, steps_per_epoch: int | None) -> None:
    """Rejects data of unknown length on several devices of TensorFlow.

    TensorFlow then learns that an epoch is over from a step that gets no batch, in which weight
    decay, the step counter and the states of random generators may go on nevertheless. On one
    device, `kernels.waiting_for` prevents that.

    Args:
        x: The data of `fit`.
        devices: The number of devices.
        steps_per_epoch: As for `fit`.

    Raises:
        DataError: If `x` is a dataset or a generator, and its length is not known.
    """
    if devices == 1 or steps_per_epoch is not None:
        return
    is_unknown = hasattr(x, "cardinality") and int(x.cardinality()) == _UNKNOWN
    if is_unknown or hasattr(x, "__next__"):
        raise DataError(
            "On several devices, fit needs data of known length, found "
            f"{type(x).__name__} of unknown length: the step that finds the end of the data could "
            "change weights without a batch. Say how many batches there are: "
            "dataset.apply(tf.data.experimental.assert_cardinality(count)); or repeat the data and "
            "pass steps_per_epoch."
        )


def rate_setters(callbacks: Any) -> list[str]:
    """Returns the class names of the Keras callbacks that set the learning rate."""
    kinds = keras.callbacks.ReduceLROnPlateau | keras.callbacks.LearningRateScheduler
    return [type(c).__name__ for c in keras.tree.flatten(callbacks) if isinstance(c, kinds)]


def check_rate_setters(optimizer: Any, callbacks: Any) -> None:
    """Rejects callbacks that set the rate of an optimizer with a Keras schedule.

    Keras itself raises only when the callback first sets the rate, possibly hours later.

    Raises:
        ModelError: If there is such a callback; the message says what to write instead.
    """
    rate = rate_of(optimizer)
    setters = rate_setters(callbacks)
    if setters and isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        raise ModelError(
            f"{setters[0]} sets the learning rate, but the optimizer follows the schedule "
            f"{type(rate).__name__}, and Keras does not allow both. {_FIXED_RATE_ADVICE}"
        )


def check_precision(model: keras.Model) -> None:
    """Checks that trainable variables have at least the precision of float32.

    In bfloat16, 1 + 0.001 is 1: most updates would be lost, and Adam's factor 0.999 would be 1, by
    which it divides by zero.

    Raises:
        ModelError: If they have fewer digits.
    """
    for variable in model.trainable_variables:
        if variable.dtype in ("bfloat16", "float16"):
            raise ModelError(
                f"The trainable variables are {variable.dtype}, such as {variable.path}, which has "
                "too few digits for updates of training. Load the model with "
                "dtype='mixed_bfloat16': it computes in bfloat16 and keeps variables in float32."
            )


@contextlib.contextmanager
def explaining() -> Iterator[None]:
    """Replaces known backend errors inside the block by the clear errors of this module."""
    try:
        yield
    except Exception as error:
        replacement = explained(error)
        if replacement is None:
            raise
        raise replacement from None


def explained(error: Exception) -> FinetuneError | None:
    """Returns a clear error for a backend error during a fit, or None if it is unknown."""
    if (found := asserted(error)) is not None:
        return found
    if "ResourceExhausted" in type(error).__name__:
        return ModelError(
            "Memory ran out. Use a smaller batch_size in batches(), a smaller max_length "
            "(the longest texts determine memory use), or a smaller batch_size with accumulate=4 "
            "in the preset, which averages the gradients of four batches into one step. "
            f"({str(error).splitlines()[0]})"
        )
    # Only TensorFlow on a CPU checks labels; elsewhere the loss becomes NaN.
    label = re.search(r"label value of (-?\d+) which is outside .* \[0, (\d+)\)", str(error))
    if label:
        return DataError(
            outside(int(label[1]), int(label[2]), Task.target_title, Task.target_advice)
        )
    row = re.search(r"indices\[.*\] = (-?\d+) is not in \[0, (\d+)\)", str(error))
    if row:  # also checked on a CPU only, and reached only by batches that were not checked before
        return ModelError(
            f"An input id is {row[1]}, but the embedding table of the model has rows 0 to "
            f"{int(row[2]) - 1}. Encode the texts with the model's own tokenizer, "
            "model.tokenizer; after adding tokens to it, call "
            "model.resize_token_embeddings(len(model.tokenizer))."
        )
    if str(error).startswith("Data cardinality is ambiguous"):
        sizes = re.findall(r"'(\w+)' sizes: ([\d, ]+)", str(error))
        listed = "; ".join(f"{name} {size}" for name, size in sizes)
        return DataError(
            f"Inputs, targets and sample weights have different numbers of rows: {listed}. Give "
            "one target, and one weight, for each row."
        )
    if str(error).startswith("Unrecognized data type"):
        return DataTypeError(
            "The model expects batches of token ids: the result of examples.batches(model), a "
            "tf.data.Dataset, or a dict of arrays by the names of the inputs. "
            f"({one_line(str(error))[:120]})"
        )
    if "learning rate is not settable" in str(error):
        return ModelError(
            "A callback sets the learning rate, but the optimizer follows a Keras schedule, and "
            f"Keras does not allow both. {_FIXED_RATE_ADVICE}"
        )
    if "EagerTensor' object has no attribute 'assign'" in str(error):
        return ModelError(
            "A callback calls learning_rate.assign(rate), but a schedule computes the rate. Write "
            "optimizer.learning_rate = rate, or pass schedule='constant' to the preset."
        )
    return None


def non_finite_loss(
    model: keras.Model, loss: float, epoch: int, first: int, last: int
) -> ModelError:
    """Returns the error for a fit whose loss is NaN or infinite.

    Args:
        model: The fitted model.
        loss: NaN or infinity.
        epoch: The epoch, counted from 1.
        first: The first step of the epoch that can have caused the loss, counted from 1.
        last: The last such step, which differs from `first` with `steps_per_execution`.
    """
    steps = f"step {first}" if first == last else f"one of the steps {first} to {last}"
    is_first_step = epoch == last == 1
    advice = "" if is_first_step else "Lower the learning rate (1e-5 to 5e-5 is usual), or check "
    note = " (the learning rate has had no effect yet)" if is_first_step else ""
    return ModelError(
        f"The loss is {loss} at {steps} of epoch {epoch}{_with_rate(model)}, so the fit was "
        f"stopped. {_describe_weights(model)} {advice or 'Check '}that labels, sample weights and "
        f"the weights of the model are finite numbers{note}{_float16_advice(model)}."
    )


def non_finite_validation(model: keras.Model, loss: float, epoch: int) -> ModelError:
    """Returns the error for a fit whose training loss is finite, but not its validation loss."""
    return ModelError(
        f"The validation loss is {loss} after epoch {epoch}{_with_rate(model)}, although the "
        f"training loss is finite, so the fit was stopped. {_describe_weights(model)} Check that "
        "labels and sample weights of the validation data are finite numbers"
        f"{_float16_advice(model)}, or lower the learning rate."
    )


def check_loss(model: keras.Model, call: str, logs: Any) -> None:
    """Rejects a loss that is NaN or infinite.

    Args:
        model: The evaluated or trained model.
        call: The method that returned `logs`.
        logs: The return value of Keras's `evaluate`, `train_on_batch` or `test_on_batch`: the
            loss, a list that begins with it, or a dict.

    Raises:
        ModelError: If the loss is NaN or infinite.
    """
    first = logs.get("loss") if isinstance(logs, dict) else logs
    first = first[0] if isinstance(first, list | tuple) and first else first
    if isinstance(first, float | np.floating) and not np.isfinite(first):
        raise ModelError(
            f"The loss computed by {call} is {first}. {_describe_weights(model)} Check that labels "
            f"and sample weights are finite numbers{_float16_advice(model)}."
        )


def check_weights(model: keras.Model) -> None:
    """Checks the weights after the last step of a fit.

    Raises:
        ModelError: If a trainable variable contains NaN or infinity.
    """
    if _non_finite_paths(model):
        raise ModelError(
            f"The last step of the fit made weights NaN or infinite{_with_rate(model)}. "
            f"{_describe_weights(model)} Lower the learning rate (1e-5 to 5e-5 is usual)"
            f"{_float16_advice(model)}."
        )


def refuse_ruined(model: keras.Model, call: str, effect: str = "wrote nothing") -> None:
    """Refuses to write or use a model whose weights contain NaN or infinity.

    Args:
        model: The model to write.
        call: The action for the message, such as "Saving".
        effect: What the message says about the action.

    Raises:
        ModelError: If a weight is NaN or infinite; such a checkpoint could not be loaded.
    """
    if broken := _non_finite_paths(model, model.weights):
        raise ModelError(
            f"{call} {effect}: {len(broken)} of the model's {len(model.weights)} variables "
            f"contain NaN or infinity, for example {broken[0]}. Load the model again and train "
            f"with a lower learning rate{_float16_advice(model)}."
        )


def _non_finite_paths(model: keras.Model, variables: list | None = None) -> list[str]:
    """Returns the paths of variables (by default, trainable ones) that contain NaN or infinity."""
    sync_state(model)
    return [
        variable.path
        for variable in (model.trainable_variables if variables is None else variables)
        # A sum takes one pass without a copy. A finite sum proves that all values are finite; the
        # sum of finite values may overflow, so then each value is checked.
        if not bool(keras.ops.isfinite(keras.ops.sum(variable)))
        and not bool(keras.ops.all(keras.ops.isfinite(variable)))
    ]


def _describe_weights(model: keras.Model) -> str:
    broken, count = _non_finite_paths(model), len(model.trainable_variables)
    if not broken:
        return "The weights are finite numbers."
    return (
        f"{len(broken)} of the {count} trainable variables now contain NaN or infinity, for "
        f"example {broken[0]}: load the model again."
    )


def _with_rate(model: keras.Model) -> str:
    try:
        return f", with a learning rate of {float(model.optimizer.learning_rate):g}"
    except AttributeError:  # a MultiOptimizer has several rates
        return ""


def _float16_advice(model: keras.Model) -> str:
    dtypes = {layer.compute_dtype for layer in all_layers(model)}
    if "float16" not in dtypes:
        return ""
    return ", or compute in bfloat16 instead of float16: ft.load(…, dtype='mixed_bfloat16')"


def is_text(value: Any) -> bool:
    """Returns whether a value is a text or an array of texts."""
    dtype = str(getattr(value, "dtype", type(value).__name__))
    return dtype in ("str", "object") or "string" in dtype or dtype.startswith(("<U", "|S"))
