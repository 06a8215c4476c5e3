"""Validation and completion of model inputs: a dict with one int32 tensor for each input."""

import numbers
from collections.abc import Collection
from typing import Any

import keras
import numpy as np
from keras import ops

from finetune_tf.architectures import PIXELS
from finetune_tf.base.values import check_range, concrete, dtype_of, rows_of
from finetune_tf.data.encodings import ENDS, LABELS
from finetune_tf.errors import ModelError
from finetune_tf.tasks.feature import POSITIONS, STARTS
from finetune_tf.training import fit_errors

# Keys in the output of tokenizers and collators that are not model inputs.
_IGNORED_KEYS = {
    *LABELS,
    *ENDS,
    "special_tokens_mask",
    "offset_mapping",
    "length",
    "overflow_to_sample_mapping",
    "num_truncated_tokens",
}


#: The token ids of each side of a model, with the other inputs that have the same shape. The first
#: one of these is the attention mask.
_SIDES = {
    "input_ids": ("attention_mask", "token_type_ids", "position_ids"),
    "decoder_input_ids": ("decoder_attention_mask",),
}

_NO_TARGETS = (
    " The decoder reads the targets: name their column where the data are read, for example "
    'from_jsonl(path, source="en", target="de"). To generate targets, use ft.predict.'
)

#: Description of the values of each input, and advice for invalid values, for messages.
_DESCRIPTIONS = {
    "input_ids": (
        "rows of the token embedding table",
        "Encode the texts with the model's own tokenizer, model.tokenizer; after adding tokens to "
        "it, call model.resize_token_embeddings(len(model.tokenizer)).",
    ),
    "token_type_ids": (
        "segment numbers of the model",
        "Use those of the model's own tokenizer, or leave them out.",
    ),
    "position_ids": (
        "positions of tokens in their text",
        "Count from 0 in each text of a row, as batches(model, packing=True) does.",
    ),
    "attention_mask": (
        "1 for a token and 0 for padding",
        "Write (mask != 0).astype('int32') if other values mean a token.",
    ),
}
_DESCRIPTIONS[STARTS] = (
    "places of tokens in their row, -1 for no text",
    "Use batches(model, packing=True), which makes them.",
)
_DESCRIPTIONS["decoder_input_ids"] = (
    "rows of the decoder's token embedding table",
    "Use Examples.batches(model), which shifts the target tokens by one place, and -100 only in "
    "targets.",
)
_DESCRIPTIONS["decoder_attention_mask"] = _DESCRIPTIONS["attention_mask"]


def sizes_of(config: Any) -> dict[str, int | None]:
    """Returns the number of valid values of each input, which start at 0.

    Args:
        config: A Hugging Face config.

    Returns:
        A dict by input; None if the config does not specify the number.

    Example:
        >>> from finetune_tf.model.inputs import sizes_of
        >>> sizes = sizes_of({"vocab_size": 30522, "type_vocab_size": 2})
        >>> sizes["input_ids"], sizes["token_type_ids"], sizes["attention_mask"]
        (30522, 2, 2)
    """
    config = config.get("text_config", config)  # that of the encoder of texts
    return {
        "input_ids": config.get("vocab_size"),
        "token_type_ids": config.get("type_vocab_size") or None,
        "attention_mask": 2,
        "decoder_input_ids": config.get("decoder_vocab_size") or config.get("vocab_size"),
        "decoder_attention_mask": 2,
    }


def check_values(inputs: Any, sizes: dict[str, int | None]) -> None:
    """Checks the values of inputs; see `values.check_range` for symbolic tensors.

    Args:
        inputs: Token ids (batch, length), or a dict of inputs.
        sizes: The result of `sizes_of`.

    Raises:
        ModelError: If values are not integers, or outside of their range.
    """
    named = inputs if hasattr(inputs, "keys") else {"input_ids": inputs}
    for name in sizes:
        if name in named and hasattr(named[name], "shape"):
            _check_input(name, named[name], sizes[name])


def check_sizes(inputs: Any, targets: Any, weights: Any, limit: int) -> None:
    """Checks the batch size of all parts of a batch, and the length of its token sequences.

    Args:
        inputs: Token ids (batch, length), or a dict of inputs.
        targets: Targets (batch, …), or None.
        weights: Sample weights (batch, …), or None.
        limit: The maximum number of tokens, for which the model has positions.

    Raises:
        DataError: If the parts have different numbers of rows.
        ModelError: If the token sequences are too long.
    """
    named = inputs if hasattr(inputs, "keys") else {"input_ids": inputs}
    first = next((name for name in ("input_ids", PIXELS) if name in named), "")
    ids, axes = named.get(first), 4 if first == PIXELS else 2
    if getattr(ids, "shape", None) is None or len(ids.shape) != axes or _is_composite(ids):
        return  # `check_values` or `complete` raises an error
    rows = targets_of_rows = rows_of(ids)
    starts = named.get(STARTS)
    if starts is not None:  # one target for each place of a packed row
        targets_of_rows = rows * ops.shape(starts)[1]
    parts = {name: value for name, value in named.items() if name in _DESCRIPTIONS}
    for name, value in {**parts, "targets": targets, "weights": weights}.items():
        if hasattr(value, "shape") and len(value.shape) and not _is_composite(value):
            message = (
                f"Inputs, targets and sample weights have different numbers of rows: {name} "
                f"{{found}}; {first} {{high}}. Give one target, and one weight, for each row."
            )
            texts = targets_of_rows if name in ("targets", "weights") else rows
            check_range(rows_of(value), texts, texts, message)
    for name in _SIDES:
        value = named.get(name)
        if getattr(value, "shape", None) is not None and len(value.shape) == 2:
            message = too_long("{found}", limit)
            check_range(ops.shape(value)[1], 0, limit, message, ModelError)


def check_joined(inputs: Any, limit: int) -> None:
    """Checks that each source fits into the positions of a model together with its target.

    Args:
        inputs: A dict with the inputs of a prefix language model, or anything else, which is not
            checked.
        limit: The number of positions.

    Raises:
        ModelError: If a source and its target have more tokens than that; see `check_range`.
    """
    sides = [_mask_of(name, inputs) for name in _SIDES] if hasattr(inputs, "keys") else []
    if not sides or any(mask is None for mask in sides):
        return  # `complete` raises an error
    tokens = sum(ops.sum(ops.cast(ops.not_equal(mask, 0), "int32"), axis=1) for mask in sides)
    message = (
        f"A source and its target have {{found}} tokens, but the model has positions for {limit} "
        "tokens of both together. Use Examples.batches(model), which shortens the sources."
    )
    check_range(tokens, 0, limit, message, ModelError)


def _mask_of(ids_name: str, inputs: Any) -> Any:
    """The attention mask (batch, length) of token ids; None if they have another shape."""
    ids, mask = inputs.get(ids_name), inputs.get(_SIDES[ids_name][0])
    if getattr(ids, "shape", None) is None or len(ids.shape) != 2 or _is_composite(ids):
        return None
    return ops.ones_like(ids, dtype="int32") if mask is None else mask


def too_long(length: Any, limit: int) -> str:
    """Returns the message for texts with more tokens than the model has positions.

    Args:
        length: The number of tokens.
        limit: The number of positions.
    """
    return (
        f"The texts have {length} tokens, but the model has positions for {limit}. Truncate them: "
        "use Examples.batches(model) or tokenizer(…, truncation=True)."
    )


def _check_input(name: str, value: Any, size: int | None) -> None:
    description, advice = _DESCRIPTIONS[name]
    if _is_composite(value):
        raise ModelError(
            f"{name} must have the shape (batch, length), padded to one length, found a "
            f"{type(value).__name__}. Write ids.to_tensor() and an attention_mask that is 0 for "
            "the padding, or use ft.data.from_arrays(texts, labels).batches(model)."
        )
    dtype = dtype_of(value)
    is_mask = name.endswith("attention_mask")
    if dtype is None or "int" not in dtype and not (dtype == "bool" and is_mask):
        symbolic = keras.utils.is_keras_tensor(value)
        how = "keras.Input(…, dtype='int32')" if symbolic else "values.astype('int32')"
        raise ModelError(
            f"{name} must be integers, {description}, found {dtype or 'no numbers'}. Fractions "
            f"would be truncated silently, so convert the values explicitly: {how}."
        )
    highest = 2**31 - 1 if size is None else size - 1
    bounds = "" if name.endswith("attention_mask") else f", from 0 to {highest}"
    message = f"{name} must be {description}{bounds}, found {{found}}. {advice}"
    check_range(value, 0, highest, message, ModelError)


def _is_composite(value: Any) -> bool:
    """Returns whether a value is a ragged or sparse tensor of TensorFlow."""
    return hasattr(value, "to_tensor") or hasattr(value, "dense_shape")


def _as_int32(value: Any) -> Any:
    """Converts to int32; values out of its range are clipped instead of wrapping around."""
    if concrete(value) is None and dtype_of(value) in ("int64", "uint32", "uint64"):
        value = ops.clip(value, -(2**31), 2**31 - 1)
    return ops.convert_to_tensor(value, dtype="int32")


def complete(
    inputs: Any,
    known: dict[str, Any],
    limit: int | None,
    sizes: dict[str, int | None] | None = None,
    optional: Collection[str] = (),
) -> dict:
    """Validates inputs and adds the attention mask and token types if they are missing.

    Args:
        inputs: Token ids (batch, length), or a dict of inputs.
        known: The model's symbolic inputs by name.
        limit: The maximum number of tokens, or None if it is unknown.
        sizes: As for `check_values`, or None if they are unknown.
        optional: Further inputs that may be given and that nothing replaces if they are not.

    Returns:
        A dict of int32 tensors with all inputs of the model.

    Raises:
        ModelError: If an input is unknown, `input_ids` is missing, a sequence is too long, or a
            value is not an integer or outside of its range.

    Example:
        >>> from finetune_tf.model.inputs import complete
        >>> known = dict(zip(("input_ids", "token_type_ids", "attention_mask"), "abc"))
        >>> inputs = complete(np.array([[2, 7, 3]]), known, limit=512)
        >>> {name: keras.ops.convert_to_numpy(ids).tolist() for name, ids in inputs.items()}
        {'input_ids': [[2, 7, 3]], 'token_type_ids': [[0, 0, 0]], 'attention_mask': [[1, 1, 1]]}
    """
    is_dict = hasattr(inputs, "keys")
    ids = inputs.get("input_ids") if is_dict else inputs
    is_list = not is_dict and isinstance(ids, list | tuple)
    if is_list and any(hasattr(part, "shape") for part in ids):
        raise ModelError(
            "The model expects its inputs by name, found a list of tensors. Write model("
            "{'input_ids': ids, 'attention_mask': mask}), or model.export(folder) to serve it."
        )
    if fit_errors.is_text(ids) or is_list or isinstance(ids, numbers.Number):
        raise ModelError(
            "The model expects input_ids (batch, length) or a dict of inputs, found a "
            f"{type(ids).__name__}. For plain texts use ft.predict(model, texts)."
        )
    if not is_dict:
        inputs = {"input_ids": inputs}
    given = {name: inputs[name] for name in inputs if name not in _IGNORED_KEYS}
    given = {name: value for name, value in given.items() if value is not None}
    if "token_type_ids" not in known:
        given.pop("token_type_ids", None)  # tokenizers may return them for models without them
    unknown = sorted(given.keys() - known.keys() - set(optional))
    required = [name for name in _SIDES if name in known or name == "input_ids"]
    if unknown or not given.keys() >= set(required):
        needed = f"{' and '.join(required)} {'are' if len(required) > 1 else 'is'} required"
        only = "only " if len(required) == 1 else ""
        raise ModelError(
            f"The model expects the inputs {', '.join(known)} ({only}{needed}), "
            f"found {', '.join(map(str, inputs)) or 'none'}"
            + (f"; unknown: {', '.join(unknown)}." if unknown else ".")
            + (f" {PIXELS} belong to a model of images." if PIXELS in unknown else "")
            + (_NO_TARGETS if "decoder_input_ids" in set(required) - given.keys() else "")
        )
    if sizes is not None:
        arrays = {n: v if hasattr(v, "shape") else np.asarray(v) for n, v in given.items()}
        check_values(arrays, sizes)
    _check_packed(given)
    given = {
        # Keras does not accept a mix of arrays and tensors.
        name: value if keras.utils.is_keras_tensor(value) else _as_int32(value)
        for name, value in given.items()
    }
    for ids in required:
        given |= _complete_side(ids, given, known, limit)
    return {name: given[name] for name in (*known, *optional) if name in given}


def _check_packed(given: dict) -> None:
    """Checks the inputs of packed rows, as for `complete`."""
    if STARTS not in given:
        return
    shape = np.shape(given[STARTS])
    if POSITIONS not in given or len(shape) != 2:
        raise ModelError(
            f"{STARTS} (batch, texts of a row) are for packed rows, which have {POSITIONS} as "
            f"well; found {STARTS} of shape {tuple(shape)} and "
            f"{', '.join(map(str, given))}. {_DESCRIPTIONS[STARTS][1]}"
        )


def _complete_side(ids_name: str, given: dict, known: dict[str, Any], limit: int | None) -> dict:
    """Returns all inputs of one side, as for `complete`; `given` has its token ids."""
    ids, (mask_name, *others) = given[ids_name], _SIDES[ids_name]
    found = {name: given[name] for name in (ids_name, mask_name, *others) if name in given}
    mask = found.get(mask_name)
    if mask is not None and concrete(mask) is None and not keras.utils.is_keras_tensor(mask):
        # Values of a symbolic mask cannot be checked here; any value but 0 means a token.
        found[mask_name] = ops.cast(ops.not_equal(mask, 0), "int32")
    for name, value in found.items():
        if len(value.shape) != 2 or any(
            None not in pair and pair[0] != pair[1]
            for pair in zip(value.shape, ids.shape, strict=False)
        ):
            raise ModelError(
                f"{name} has the shape {tuple(value.shape)}, but inputs must be (batch, length) "
                f"with the same length; {ids_name} has {tuple(ids.shape)}. Write ids[None] for a "
                "single text."
            )
    length = ids.shape[-1]
    if limit is not None and length is not None and length > limit:
        # Positions outside of the table raise a late error on a CPU and none on a GPU.
        raise ModelError(too_long(length, limit))
    found.setdefault(mask_name, ops.ones_like(ids, dtype="int32"))
    for name in others:
        if name in known:
            found.setdefault(name, ops.zeros_like(ids, dtype="int32"))
    return found
