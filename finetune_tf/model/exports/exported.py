"""`load_exported`: a model that runs from an exported folder, for predictions and comparisons."""

import os
from pathlib import Path
from typing import Any

import keras
import numpy as np

from finetune_tf.base.json_files import read_json
from finetune_tf.base.labels import Labels
from finetune_tf.base.paths import absolute
from finetune_tf.base.spelling import names_checked
from finetune_tf.checkpoints.tokenizers import load_tokenizer
from finetune_tf.errors import ArgumentError, CheckpointError
from finetune_tf.model.exports.format import Engine, Record
from finetune_tf.model.exports.formats import FORMATS, tasks_of_all_engines
from finetune_tf.model.model_info import Config
from finetune_tf.tasks import TASKS, Task, get_task


class ExportedModel:
    """An exported model of texts, for `ft.predict`, `ft.evaluate` and `ft.compare`.

    It has the task, the labels and the tokenizer of the model that was exported, and its outputs
    come from the engine of the format. It cannot be trained. `ft.load_exported` makes it.

    Attributes:
        folder: The folder.
        record: What the folder says of itself: format, task and int8.
        name: The format, and "int8" for a quantized model.
        task: The task with its labels.
        config: The Hugging Face config.
        tokenizer: The fast tokenizer.
        inputs: The inputs of the graph, which have names.
        trainable_variables: Empty.

    Example:
        >>> served = ft.load_exported(model.export("served"))
        >>> ft.predict(served, "a good film").label == ft.predict(model, "a good film").label
        True
    """

    trainable_variables = ()

    def __init__(self, folder: Path, record: Record, engine: Engine) -> None:
        self.folder, self.record, self._engine = folder, record, engine
        self.name = " ".join(filter(None, (record.format, record.quantize)))
        self.config = Config(read_json(folder / "config.json"))
        self.task: Task = get_task(record.task, record.labels, self.config)
        self.tokenizer = load_tokenizer(folder, config=self.config)
        self.inputs = [keras.KerasTensor((None, None), "int32", name=n) for n in record.inputs]

    @property
    def labels(self) -> Labels | None:
        """The names of the outputs, or None if they have no names."""
        return self.record.labels

    @property
    def max_length(self) -> int | None:
        """The maximum number of tokens of a text, including special tokens."""
        return self.record.max_length

    @property
    def row_length(self) -> int | None:
        """The maximum number of tokens of a row by default."""
        return self.record.row_length or self.task.row_length(self.max_length)

    def predict_on_batch(self, inputs: dict[str, Any]) -> np.ndarray:
        """Runs the graph.

        Args:
            inputs: All inputs of the graph by name, (batch, length) each; others are ignored.

        Returns:
            The outputs of the model that was exported, such as logits (batch, labels).
        """
        given = {name: np.asarray(inputs[name], "int32") for name in self.record.inputs}
        return self.task.unnamed(self._engine(given))

    predict = predict_on_batch

    def __repr__(self) -> str:
        return f"<ExportedModel {self.folder}: {self.name}, {self.record.task}>"


@names_checked
def load_exported(folder: str | Path, dtype: str = "float32") -> ExportedModel:
    """Opens a folder that `model.export` wrote, to compare it with the model.

    Args:
        folder: The folder, in any format. It contains the tokenizer as well.
        dtype: "float32", or for OpenVINO also "bfloat16": what is not int8 is computed in it.

    Returns:
        A model for `ft.predict`, `ft.evaluate` and `ft.compare`. It encodes texts with the
        tokenizer in the folder and runs them in TensorFlow, ONNX Runtime, OpenVINO or LiteRT.

    Raises:
        ArgumentError: If the engine does not compute in `dtype`.
        CheckpointError: If the folder does not exist, is no export of this version, has no
            tokenizer, or its model does not read texts.
        MissingExtraError: If the package of the engine is not installed.

    Example:
        >>> folder = model.export("served", format="tf_saved_model")
        >>> comparison = ft.compare({"model": model, "served": ft.load_exported(folder)}, test)
        >>> comparison.rows[1].difference.value
        0.0
    """
    folder = absolute(folder)
    if not os.path.isdir(folder):
        raise CheckpointError(
            f"The folder {folder} does not exist. Write one with model.export(folder)."
        )
    record = Record.read(folder)
    if record.format not in FORMATS:
        raise CheckpointError(
            f"{folder} has the format {record.format!r}, which this version does not know; it "
            f"knows {', '.join(FORMATS)}. Export the model again."
        )
    if record.task not in TASKS or not TASKS[record.task].runs_in_all_engines:
        raise CheckpointError(
            f"load_exported reads exported models for {tasks_of_all_engines()}; the one in "
            f"{folder} is for {record.task}. Run it with the engine of its format, "
            f"{FORMATS[record.format].title}."
        )
    format = FORMATS[record.format]
    if dtype not in format.dtypes:
        raise ArgumentError(
            f"A model in the format {format.name!r} computes in {' or '.join(format.dtypes)}, "
            f"found dtype={dtype!r}."
        )
    options = {} if dtype == "float32" else {"dtype": dtype}
    return ExportedModel(folder, record, format.read(folder, record, **options))
