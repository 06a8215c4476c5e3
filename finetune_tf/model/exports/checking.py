"""Checks that an exported folder computes what its model computes, when it is written."""

from pathlib import Path
from typing import Any

import numpy as np

from finetune_tf.errors import ModelError
from finetune_tf.messages import warn
from finetune_tf.model.exports.format import Format, Record

# Relative to 1 + the largest output; rounding alone makes 1e-5.
_TOLERANCE = 1e-3
_SHAPES = ((1, 5), (3, 12))  # of the batches: rows and tokens
_COMPARED = 100  # batches of calibration, on which an int8 graph is compared
# The share of equal decisions, or of the variance of numbers, below which a warning says so.
_LEAST_EQUAL = 0.97
_COMPARE = (
    "Compare both with ft.compare and ft.load_exported before you use it. Without calibration, "
    "only weights are int8, which usually costs nothing."
)


def check_export(model: Any, folder: Path, format: Format, record: Record) -> None:
    """Runs an exported model of texts on random token ids, in batches of two shapes.

    Converters accept some graphs that their engine then cannot run, or computes differently.

    Args:
        model: The model in float32.
        folder: The folder.
        format: Its format.
        record: Its record.

    Raises:
        ModelError: If the engine fails, an output has another shape than that of the model or is
            not finite, or if a float32 graph computes other numbers.
    """
    family = model.config["model_type"]
    title = f"The {format.title} graph of this model of the family {family}"
    others = [name for name in ("tf_saved_model", "openvino") if name != format.name]
    advice = f"Export it as {' or '.join(map(repr, others))}."
    engine = None
    for rows, length in _SHAPES:
        inputs = random_inputs(model, rows, min(length, record.max_length or length))
        wanted = np.asarray(model(inputs))
        try:
            engine = engine or format.read(folder, record)
            found = model.task.unnamed(engine(inputs))
        except Exception as error:  # engines raise errors of any kind
            reason = " ".join(str(error).split())[:300]
            raise ModelError(f"{title} does not run: {reason}. {advice}") from error
        if found.shape != wanted.shape or not np.isfinite(found).all():
            raise ModelError(
                f"{title} has outputs of the shape {found.shape} that are not all finite, but "
                f"the model has finite outputs of the shape {wanted.shape}. {advice}"
            )
        difference = float(np.abs(found - wanted).max())
        if record.quantize is None and difference > _TOLERANCE * (1 + np.abs(wanted).max()):
            raise ModelError(
                f"{title} computes other numbers than the model: they differ by up to "
                f"{difference:.2g} at outputs of up to {np.abs(wanted).max():.2g}. {advice}"
            )


def check_decisions(
    model: Any, folder: Path, format: Format, record: Record, batches: list[dict[str, np.ndarray]]
) -> None:
    """Warns if an int8 graph decides otherwise than its model on the examples of its calibration.

    For a regression, the numbers are compared.

    Ranges of activations that are chosen once can cost many points of accuracy, and nothing else
    would say so.

    Args:
        model: The model in float32.
        folder: The folder.
        format: Its format.
        record: Its record.
        batches: The inputs of the calibration.
    """
    task = model.task
    if task.output_kind == "vectors":  # which decide nothing
        return
    engine = format.read(folder, record)
    found, wanted = [], []
    for inputs in batches[:_COMPARED]:
        found.append(np.asarray(task.unnamed(engine(inputs))))
        wanted.append(np.asarray(model(inputs)))
    if task.output_kind == "number":
        _check_numbers(np.concatenate(found), np.concatenate(wanted))
        return
    found, wanted = ([_decisions(task, each) for each in outputs] for outputs in (found, wanted))
    if task.output_kind == "several":  # the labels of a text are one decision: most have few
        found, wanted = ([each.tolist() for each in outputs] for outputs in (found, wanted))
        equal, total = sum(a == b for a, b in zip(found, wanted, strict=True)), len(wanted)
    else:
        equal = sum(int((a == b).sum()) for a, b in zip(found, wanted, strict=True))
        total = sum(each.size for each in wanted)
    if equal < _LEAST_EQUAL * total:
        warn(
            f"The int8 graph decides otherwise than the model for {total - equal} of {total} "
            f"outputs of the calibration. {_COMPARE}"
        )


def _decisions(task: Any, outputs: np.ndarray) -> np.ndarray:
    """What a model decides: by the thresholds of its labels, if it has some."""
    if task.problem_type is None:
        return outputs.argmax(-1)
    return task.decide(list(outputs), None, None)


def _check_numbers(found: np.ndarray, wanted: np.ndarray) -> None:
    """Warns if much of how the numbers of a model vary is lost."""
    lost = np.square(found - wanted).mean()
    if lost > (1 - _LEAST_EQUAL) * wanted.var() and len(wanted) > 1:
        warn(
            "The int8 graph computes other numbers than the model: on the calibration, they "
            f"differ by {np.sqrt(lost):.2g}, and those of the model have a standard deviation of "
            f"{wanted.std():.2g}. {_COMPARE}"
        )


def random_inputs(model: Any, rows: int, length: int) -> dict[str, np.ndarray]:
    """Random token ids, whose last row is padded unless it has a single token.

    Args:
        model: A FineTuneModel of texts.
        rows: The number of rows.
        length: Tokens in a row.

    Returns:
        All inputs of the model by name, (rows, length) int32.
    """
    config = model.config
    generator = np.random.default_rng(0)
    ids = generator.integers(0, config["vocab_size"], (rows, length)).astype("int32")
    padding = config.get("pad_token_id") or 0
    ids[ids == padding] = (padding + 1) % config["vocab_size"]
    mask = np.ones_like(ids)
    if rows > 1:
        mask[-1, length // 2 :] = 0
    ids[mask == 0] = padding
    inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    return {tensor.name: inputs[tensor.name] for tensor in model.inputs}
