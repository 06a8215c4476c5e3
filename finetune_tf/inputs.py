"""What a model is called with, made complete: one dict of int32 tensors for each of its inputs."""

from typing import Any

import keras
from keras import ops

from finetune_tf.encodings import ENDS, LABELS
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


def complete(inputs: Any, known: dict[str, Any], limit: int | None) -> dict:
    """Adds the mask and the token types that were left out, and refuses what no model takes.

    Args:
        inputs: Ids (batch, length), or a dict with them.
        known: The model's symbolic inputs by name.
        limit: Tokens that the model has positions for; None where nobody knows.

    Raises:
        ModelError: If an input is unknown, `input_ids` is missing, or too long.
    """
    named = hasattr(inputs, "keys")
    ids = inputs.get("input_ids") if named else inputs
    listed = not named and isinstance(ids, list | tuple)
    if listed and any(hasattr(part, "shape") for part in ids):
        raise ModelError(
            "The model takes its inputs by name, found a list of tensors. Write model("
            "{'input_ids': ids, 'attention_mask': mask}), or model.export(folder) to serve it."
        )
    if fit_errors.is_text(ids) or listed:
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
    given = {
        # Keras refuses a mix of arrays and tensors.
        name: value
        if keras.utils.is_keras_tensor(value)
        else ops.convert_to_tensor(value, dtype="int32")
        for name, value in given.items()
    }
    ids = given["input_ids"]
    length = ids.shape[-1]
    if limit is not None and length is not None and length > limit:
        # Positions beyond the table fail late on a CPU and in silence on a GPU.
        raise ModelError(
            f"The texts have {length} tokens, but the model has positions for {limit}. Cut "
            "them: Examples.batches(model) does, and so does tokenizer(…, truncation=True)."
        )
    if "attention_mask" not in given:
        given["attention_mask"] = ops.ones_like(ids, dtype="int32")
    if "token_type_ids" in known and "token_type_ids" not in given:
        given["token_type_ids"] = ops.zeros_like(ids, dtype="int32")
    return {name: given[name] for name in known}
