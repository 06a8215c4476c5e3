"""What the old classes were called with, in all the ways that scripts do it."""

from collections.abc import Mapping
from typing import Any

from keras import ops

from finetune_tf.compat.outputs import ModelOutput
from finetune_tf.encodings import ENDS
from finetune_tf.errors import ModelError

ORDER = ("input_ids", "attention_mask", "token_type_ids")  # of positional inputs
TARGETS = ("labels", *ENDS)
_UNSUPPORTED = ("inputs_embeds", "position_ids", "head_mask", "encoder_hidden_states")

OF_LABELS = ("id2label", "label2id", "num_labels", "problem_type")  # keys of a config


def labels_of(options: dict, config: Mapping) -> Any:
    """What `load` is to be told of labels; takes it out of the options."""
    names = options.pop("id2label", None)
    count = options.pop("num_labels", None)
    options.pop("label2id", None)
    if "labels" in options:
        return options.pop("labels")
    if names is None and count is None:
        names = config.get("id2label")
    if names is None:
        return count
    return [names[key] for key in sorted(names, key=int)]


def inputs_of(args: tuple, kwargs: dict) -> tuple[dict, dict]:
    """Inputs and labels by name, and the other arguments."""
    kwargs = dict(kwargs)
    inputs: dict[str, Any] = {}
    if "inputs" in kwargs:
        args = (kwargs.pop("inputs"), *args)
    if len(args) == 1 and hasattr(args[0], "keys"):
        inputs.update(args[0])
    elif len(args) == 1 and isinstance(args[0], list | tuple):
        inputs.update(zip(ORDER, args[0], strict=False))
    else:
        inputs.update(zip(ORDER, args, strict=False))
    for name in (*ORDER, *TARGETS, *_UNSUPPORTED):
        if name in kwargs:
            inputs[name] = kwargs.pop(name)
    for name in _UNSUPPORTED:
        if inputs.pop(name, None) is not None:
            raise ModelError(
                f"{name} is not supported; the model takes {', '.join(ORDER)} and labels."
            )
    return {name: value for name, value in inputs.items() if value is not None}, kwargs


def logits_in(output: Any) -> Any:
    """Logits as `FineTuneModel` gives them."""
    if not isinstance(output, ModelOutput):
        if isinstance(output, list | tuple) and len(output) == 2:
            return ops.stack(output, axis=1)
        return output
    if output.start_logits is not None:
        return ops.stack([output.start_logits, output.end_logits], axis=1)
    if output.logits is None:
        raise ModelError(
            "A bare model has no loss of its own: put layers on its outputs in a keras.Model, or "
            "take a class for a task, such as TFBertForSequenceClassification."
        )
    return output.logits
