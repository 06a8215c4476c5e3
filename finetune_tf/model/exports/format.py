"""What a format of exports is, and what is recorded of an export."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import keras
import numpy as np

from finetune_tf.adapters.attaching import active_names
from finetune_tf.base.json_files import member, read_json, write_json
from finetune_tf.base.labels import Labels
from finetune_tf.errors import CheckpointError
from finetune_tf.graph.digests import digest_of_weights
from finetune_tf.model.exports.graph import Graph

#: The file in which an exported folder says what it is.
RECORD = "export.json"

#: A function from arrays by name to the outputs of an exported graph by name.
Engine = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Int8:
    """How a model is quantized.

    Attributes:
        batches: Batches of examples, inputs by name, by which the ranges of activations are
            chosen; None if they are chosen when the model runs, or stay float32.
    """

    batches: list[dict[str, np.ndarray]] | None = None


@dataclass(frozen=True)
class Record:
    """What a folder says of the export in it.

    Attributes:
        format: The name of the format.
        quantize: "int8", or None for float32.
        task: The name of the task.
        labels: The names of the outputs, or None if they have no names.
        inputs: The names of the inputs with token ids or pixels.
        max_length: The maximum number of tokens of a text; None for images.
        strings: Whether the default function of the graph reads texts.
        weights: The digest of the weights that were exported; empty in files of older versions.
        row_length: Tokens that a row has by default; None in files of older versions, for images
            and without a tokenizer.
    """

    format: str
    quantize: str | None
    task: str
    labels: Labels | None
    inputs: tuple[str, ...]
    max_length: int | None
    strings: bool = False
    weights: str = ""
    row_length: int | None = None

    def write(self, folder: Path) -> None:
        """Writes the record into a folder."""
        labels = self.labels and {
            "names": list(self.labels),
            "problem_type": self.labels.problem_type,
        }
        write_json(folder / RECORD, asdict(self) | {"labels": labels, "inputs": list(self.inputs)})

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Reads the record of a folder.

        Raises:
            CheckpointError: If there is none, or it is damaged.
        """
        path = folder / RECORD
        if not path.is_file():
            raise CheckpointError(
                f"{folder} has no {RECORD}, so it is no exported model. Write one with "
                "model.export(folder); to load a checkpoint, use ft.load."
            )
        content = read_json(path)
        optional = {"default": None}
        labels = member(content, "labels", dict, path, **optional)
        return cls(
            format=member(content, "format", str, path),
            quantize=member(content, "quantize", str, path, **optional),
            task=member(content, "task", str, path),
            labels=None if labels is None else Labels(**labels),
            inputs=tuple(member(content, "inputs", list, path)),
            max_length=member(content, "max_length", int, path, **optional),
            strings=member(content, "strings", bool, path, default=False),
            weights=member(content, "weights", str, path, default=""),
            row_length=member(content, "row_length", int, path, **optional),
        )


def digest_of(model: keras.Model) -> str:
    """Returns a digest of the weights of a model, and of the names of its active adapters."""
    return digest_of_weights(model, repr(active_names(model)))


@dataclass(frozen=True)
class Format:
    """A format that models are exported to.

    Attributes:
        name: The name, an argument of `export`.
        title: What the format is called in messages.
        files: The names of its files and folders.
        write: Writes a graph into a folder, as int8 if that is not None. Raises `OSError` if it
            cannot be written.
        read: Opens a folder.
        packages: Optional packages that writing needs, by module.
        int8_packages: Further ones for int8.
        int8: What int8 means in this format, for messages; empty if there is none.
        calibrates: Whether examples for calibration are used.
        runs_all: Whether the engine runs all models, and not only encoders of texts.
        portable: Whether the graph consists of the portable kernels.
        dtypes: The dtypes that the engine can compute in.
    """

    name: str
    title: str
    files: tuple[str, ...]
    write: Callable[[Graph, Path, Int8 | None], None]
    read: Callable[..., Engine]
    packages: tuple[str, ...] = ()
    int8_packages: tuple[str, ...] = ()
    int8: str = ""
    calibrates: bool = False
    runs_all: bool = True
    portable: bool = False
    dtypes: tuple[str, ...] = ("float32",)


def unsupported(graph: Graph, title: str, reason: Any) -> str:
    """Returns the message about a model that a converter cannot convert."""
    text = " ".join(str(reason).split())[:300]
    return (
        f"The model of the family {graph.model.config['model_type']} cannot be exported to "
        f"{title}: {text}. Export it as 'tf_saved_model' or 'openvino'."
    )
