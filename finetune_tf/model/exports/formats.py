"""The formats that models are exported to. A new format is a file here and a row of the table."""

from finetune_tf.model.exports import litert, onnx, openvino, saved_model
from finetune_tf.model.exports.format import RECORD, Format
from finetune_tf.tasks import TASKS

FORMATS: dict[str, Format] = {
    module.FORMAT.name: module.FORMAT for module in (saved_model, openvino, onnx, litert)
}

#: The names of all files and folders that an export may write besides config and tokenizer.
FILES = (RECORD, *(name for each in FORMATS.values() for name in each.files))


def formats_with_int8() -> str:
    """Returns the names of the formats that have int8 weights, for messages."""
    return ", ".join(repr(each.name) for each in FORMATS.values() if each.int8)


def tasks_of_all_engines() -> str:
    """Returns the names of the tasks whose models every format can have, for messages."""
    return ", ".join(task.name for task in TASKS.values() if task.runs_in_all_engines)
