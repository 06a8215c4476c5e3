"""The arguments with which the old classes are made and called, in all forms that scripts use."""

from pathlib import Path
from typing import Any

from keras import ops

from finetune_tf.architectures import PIXELS
from finetune_tf.base.json_files import read_json
from finetune_tf.checkpoints.hub import resolve
from finetune_tf.compat.outputs import ModelOutput
from finetune_tf.data.encodings import ENDS
from finetune_tf.errors import ModelError
from finetune_tf.families import Family
from finetune_tf.tasks import Task

ORDER = ("input_ids", "attention_mask", "token_type_ids")  # the order of positional inputs
_OF_DECODERS = ("decoder_input_ids", "decoder_attention_mask")
TARGETS = ("labels", *ENDS)
IMAGES = (PIXELS,)  # those of image models
_UNSUPPORTED = ("inputs_embeds", "position_ids", "head_mask", "encoder_hidden_states")
_UNSUPPORTED += ("past_key_values", "past", "encoder_outputs", "decoder_inputs_embeds")
_UNSUPPORTED += ("bool_masked_pos",)

#: Arguments of a call that a config may also set, with their defaults.
FLAGS = {"output_hidden_states": False, "output_attentions": False, "return_dict": True}
_OF_LABELS = ("id2label", "num_labels", "label2id", "problem_type")  # keys of a config
_OF_LOAD = ("cache_dir", "revision", "dtype", "problem_type", "pooling", "new_head")
# Arguments of from_pretrained that have no effect here.
_WITHOUT_EFFECT = {
    *("from_pt", "from_tf", "use_safetensors", "trust_remote_code", "force_download"),
    *("local_files_only", "token", "use_auth_token", "add_pooling_layer", "name"),
    *("low_cpu_mem_usage", "resume_download", "proxies", "attn_implementation"),
}


def family_of_checkpoint(checkpoint: str | Path, options: dict) -> str:
    """The model_type of a checkpoint, which is downloaded if necessary."""
    if hasattr(options.get("config"), "model_type") and Path(checkpoint).is_file():
        return options["config"].model_type
    folder = resolve(checkpoint, options.get("revision"), options.get("cache_dir"))
    return read_json(folder / "config.json").get("model_type")


def options_of(given: dict, config: Any, family: Family, task: type[Task]) -> dict:
    """Converts options of from_pretrained to those of `load`.

    Args:
        given: The options.
        config: A config of transformers, or a dict, or None.
        family: The family of the class.
        task: The task of the class.

    Raises:
        TypeError: If an option is unknown.
    """
    given = {name: value for name, value in given.items() if name not in _WITHOUT_EFFECT}
    config = config.to_dict() if hasattr(config, "to_dict") else dict(config or {})
    options = {name: given.pop(name) for name in _OF_LOAD if name in given}
    labels, names, count, _ = (given.pop(key, None) for key in ("labels", *_OF_LABELS[:3]))
    replaces_head = given.pop("ignore_mismatched_sizes", False)
    if task.has_labels:
        if labels is None and names is None:
            labels = config.get("id2label") if count is None else count
        options["labels"] = names if labels is None else labels
        options.setdefault("new_head", bool(replaces_head and options["labels"] is not None))
        if config.get("problem_type"):
            options.setdefault("problem_type", config["problem_type"])
    if family.image_processor and "image_size" in given:
        options["image_size"] = given.pop("image_size")  # the size that images are prepared to
    if task.poolings:
        head = family.head(task.name, family.complete({"model_type": family.model_type}))
        options.setdefault("pooling", task.class_pooling(head))
    known = {*family.defaults, *family.supported, *family.dropout_keys, *FLAGS}
    if unknown := given.keys() - known:
        raise TypeError(
            f"takes no {', '.join(sorted(unknown))}; it takes num_labels, config and its kin, and "
            "keys of the config that change the numbers."
        )
    keys = {key: value for key, value in {**config, **given}.items() if key not in _OF_LABELS}
    return options | {"config": keys}


def inputs_of(
    args: tuple, kwargs: dict, order: tuple[str, ...] = ORDER
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Separates the inputs and labels of a call, by name, from its other arguments.

    Args:
        args: The positional arguments.
        kwargs: The keyword arguments.
        order: The names of the inputs in the order of positional arguments.

    Raises:
        ModelError: If an input is not supported.
    """
    kwargs = dict(kwargs)
    inputs: dict[str, Any] = {}
    if "inputs" in kwargs:
        args = (kwargs.pop("inputs"), *args)
    if len(args) == 1 and hasattr(args[0], "keys"):
        inputs.update(args[0])
    elif len(args) == 1 and isinstance(args[0], list | tuple):
        inputs.update(zip(order, args[0], strict=False))
    else:
        inputs.update(zip(order, args, strict=False))
    for name in (*order, *_OF_DECODERS, *TARGETS, *_UNSUPPORTED):
        if name in kwargs:
            inputs[name] = kwargs.pop(name)
    for name in _UNSUPPORTED:
        if inputs.pop(name, None) is not None:
            raise ModelError(
                f"{name} is not supported; the model takes {', '.join(order)} and labels."
            )
    return {name: value for name, value in inputs.items() if value is not None}, kwargs


def logits_in(output: Any) -> Any:
    """The logits of an output in the form that `FineTuneModel` returns them."""
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
