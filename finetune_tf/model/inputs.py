"""What a model is called with, made complete: one dict of int32 tensors for each of its inputs."""

import numbers
from typing import Any

import keras
import numpy as np
from keras import ops

from finetune_tf.base.values import check_range, concrete, dtype_of, rows_of
from finetune_tf.data.encodings import ENDS, LABELS
from finetune_tf.errors import ModelError
from finetune_tf.training import fit_errors

# What tokenizers and collators may add to their output and no model wants.
_DROPPED = {
    *LABELS,
    *ENDS,
    "special_tokens_mask",
    "offset_mapping",
    "length",
    "overflow_to_sample_mapping",
    "num_truncated_tokens",
}


#: What the numbers of each input are, for messages.
_MEANING = {
    "input_ids": (
        "the rows of the word table",
        "Encode the texts with the model's own tokenizer, model.tokenizer; after adding words to "
        "it, call model.resize_token_embeddings(len(model.tokenizer)).",
    ),
    "token_type_ids": (
        "the segments that the model knows",
        "Give those that the model's own tokenizer makes, or leave them out.",
    ),
    "attention_mask": (
        "1 for a token and 0 for padding",
        "Write (mask != 0).astype('int32') if that is what it means.",
    ),
}


def sizes_of(config: Any) -> dict[str, int | None]:
    """How many numbers, from 0 on, each input may have; None where the config does not say.

    Args:
        config: A Hugging Face config.
    """
    return {
        "input_ids": config.get("vocab_size"),
        "token_type_ids": config.get("type_vocab_size") or None,
        "attention_mask": 2,
    }


def check_values(inputs: Any, sizes: dict[str, int | None]) -> None:
    """Checks the numbers of inputs; see `values.check_range` about those of a traced step.

    Args:
        inputs: Ids (batch, length), or a dict with them.
        sizes: How many numbers each may have, from 0 on.

    Raises:
        ModelError: If numbers are no whole ones, or outside of their range.
    """
    named = inputs if hasattr(inputs, "keys") else {"input_ids": inputs}
    for name in sizes:
        if name in named and hasattr(named[name], "shape"):
            _check(name, named[name], sizes[name])


def check_sizes(inputs: Any, targets: Any, weights: Any, limit: int) -> None:
    """Checks that all parts of a batch have as many rows, and no more tokens than positions.

    Args:
        inputs: Ids (batch, length), or a dict with them.
        targets: (batch, …), or None.
        weights: (batch, …), or None.
        limit: Tokens that the model has positions for.

    Raises:
        DataError: If numbers of rows differ.
        ModelError: If the rows are too long.
    """
    named = inputs if hasattr(inputs, "keys") else {"input_ids": inputs}
    ids = named.get("input_ids")
    if getattr(ids, "shape", None) is None or len(ids.shape) != 2 or _is_composite(ids):
        return  # `check_values` or `complete` says what is wrong
    texts, length = rows_of(ids), ops.shape(ids)[1]
    parts = {name: value for name, value in named.items() if name in _MEANING}
    for name, value in {**parts, "targets": targets, "weights": weights}.items():
        if hasattr(value, "shape") and len(value.shape) and not _is_composite(value):
            message = (
                f"Inputs, targets and sample weights have different numbers of rows: {name} "
                "{found}; input_ids {high}. Give one target, and one weight, for each row."
            )
            check_range(rows_of(value), texts, texts, message)
    check_range(length, 0, limit, too_long("{found}", limit), ModelError)


def too_long(length: Any, limit: int) -> str:
    """The message about texts that have more tokens than a model has positions.

    Args:
        length: Tokens of the texts.
        limit: Positions.
    """
    return (
        f"The texts have {length} tokens, but the model has positions for {limit}. Cut "
        "them: Examples.batches(model) does, and so does tokenizer(…, truncation=True)."
    )


def _check(name: str, value: Any, size: int | None) -> None:
    meaning, advice = _MEANING[name]
    if _is_composite(value):
        raise ModelError(
            f"{name} are (batch, length), padded to one length, found a {type(value).__name__}. "
            "Write ids.to_tensor() and an attention_mask that is 0 for the padding, or let "
            "ft.data.from_arrays(texts, labels).batches(model) do it."
        )
    dtype = dtype_of(value)
    if dtype is None or "int" not in dtype and (dtype != "bool" or name != "attention_mask"):
        symbolic = keras.utils.is_keras_tensor(value)
        how = "keras.Input(…, dtype='int32')" if symbolic else "values.astype('int32')"
        raise ModelError(
            f"{name} are whole numbers, {meaning}, found {dtype or 'no numbers'}: a fraction would "
            f"be cut off unseen. Give integers: {how}."
        )
    highest = 2**31 - 1 if size is None else size - 1
    until = f", which are from 0 to {highest}" if size != 2 or name != "attention_mask" else ""
    message = f"{name} are {meaning}{until}, found {{found}}. {advice}"
    check_range(value, 0, highest, message, ModelError)


def _is_composite(value: Any) -> bool:
    """Whether it is one of TensorFlow's ragged or sparse tensors."""
    return hasattr(value, "to_tensor") or hasattr(value, "dense_shape")


def _as_int32(value: Any) -> Any:
    """A tensor of int32; a number beyond it becomes the last one there is, and not another id."""
    if concrete(value) is None and dtype_of(value) in ("int64", "uint32", "uint64"):
        value = ops.clip(value, -(2**31), 2**31 - 1)
    return ops.convert_to_tensor(value, dtype="int32")


def complete(
    inputs: Any,
    known: dict[str, Any],
    limit: int | None,
    sizes: dict[str, int | None] | None = None,
) -> dict:
    """Adds the mask and the token types that were left out, and refuses what no model takes.

    Args:
        inputs: Ids (batch, length), or a dict with them.
        known: The model's symbolic inputs by name.
        limit: Tokens that the model has positions for; None where nobody knows.
        sizes: As for `check_values`; None where nobody knows.

    Raises:
        ModelError: If an input is unknown, `input_ids` is missing, or too long; or if numbers are
            no whole ones, or outside of their range.
    """
    named = hasattr(inputs, "keys")
    ids = inputs.get("input_ids") if named else inputs
    listed = not named and isinstance(ids, list | tuple)
    if listed and any(hasattr(part, "shape") for part in ids):
        raise ModelError(
            "The model takes its inputs by name, found a list of tensors. Write model("
            "{'input_ids': ids, 'attention_mask': mask}), or model.export(folder) to serve it."
        )
    if fit_errors.is_text(ids) or listed or isinstance(ids, numbers.Number):
        raise ModelError(
            "The model takes input_ids (batch, length) or a dict of inputs, found a "
            f"{type(ids).__name__}. For plain texts use ft.predict(model, texts)."
        )
    if not named:
        inputs = {"input_ids": inputs}
    given = {name: inputs[name] for name in inputs if name not in _DROPPED}
    given = {name: value for name, value in given.items() if value is not None}
    if "token_type_ids" not in known:
        given.pop("token_type_ids", None)  # tokenizers give them to models without as well
    unknown = sorted(given.keys() - known.keys())
    if unknown or "input_ids" not in given:
        raise ModelError(
            f"The model takes the inputs {', '.join(known)} (only input_ids is needed), "
            f"found {', '.join(map(str, inputs)) or 'none'}"
            + (f"; unknown: {', '.join(unknown)}." if unknown else ".")
        )
    if sizes is not None:
        arrays = {n: v if hasattr(v, "shape") else np.asarray(v) for n, v in given.items()}
        check_values(arrays, sizes)
    given = {
        # Keras refuses a mix of arrays and tensors.
        name: value if keras.utils.is_keras_tensor(value) else _as_int32(value)
        for name, value in given.items()
    }
    mask = given.get("attention_mask")
    if mask is not None and concrete(mask) is None and not keras.utils.is_keras_tensor(mask):
        # Nobody sees the numbers of a traced step: what is not 0 there means a token.
        given["attention_mask"] = ops.cast(ops.not_equal(mask, 0), "int32")
    ids = given["input_ids"]
    for name, value in given.items():
        if len(value.shape) != 2 or any(
            None not in pair and pair[0] != pair[1]
            for pair in zip(value.shape, ids.shape, strict=False)
        ):
            raise ModelError(
                f"{name} has the shape {tuple(value.shape)}, but inputs are (batch, length), all "
                f"of one length; input_ids has {tuple(ids.shape)}. Write ids[None] for one text."
            )
    length = ids.shape[-1]
    if limit is not None and length is not None and length > limit:
        # Positions beyond the table fail late on a CPU and in silence on a GPU.
        raise ModelError(too_long(length, limit))
    if "attention_mask" not in given:
        given["attention_mask"] = ops.ones_like(ids, dtype="int32")
    if "token_type_ids" in known and "token_type_ids" not in given:
        given["token_type_ids"] = ops.zeros_like(ids, dtype="int32")
    return {name: given[name] for name in known}
