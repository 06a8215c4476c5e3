"""The interface of a layout of checkpoint folders."""

import abc
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune_tf.families.family import Family, Head
from finetune_tf.weights.table import Weight
from finetune_tf.weights.tensors import Tensors
from finetune_tf.weights.writing import WeightWriter


@dataclass(frozen=True)
class Modules:
    """The modules of sentence-transformers that follow the transformer, and their settings.

    Attributes:
        pooling: "cls", "mean", the name of another mode, or None if it is not specified.
        dense: Tensors of a Dense module, with names such as "2_Dense.linear.weight"; empty if
            there is no such module.
        dense_size: Output size of the Dense module; None if there is none.
        activation: Activation of the Dense module: the name of the PyTorch class without its
            package, such as "Identity".
        normalize: Whether vectors are scaled to unit L2 norm.
        max_length: Maximum number of tokens, longer texts are truncated; None if not specified.
        types: Class names of the modules in order, without their package; empty if they are not
            listed.
        prompt: Text that is prepended to each input text; may be empty.
        lower_case: Whether texts are lower-cased before they are tokenized.
    """

    pooling: str | None = None
    dense: Tensors = field(default_factory=dict)
    dense_size: int | None = None
    activation: str = "Identity"
    normalize: bool = False
    max_length: int | None = None
    types: tuple[str, ...] = ()
    prompt: str = ""
    lower_case: bool = False


class Layout(abc.ABC):
    """The files of a checkpoint folder, as one library expects them.

    A task chooses the layout in which its models are saved (`Task.layout`). A folder is read with
    the first layout that recognizes it.
    """

    @abc.abstractmethod
    def read(self, folder: Path) -> Modules | None:
        """Reads which modules follow the transformer.

        Args:
            folder: A checkpoint folder.

        Returns:
            The modules; None if the folder has no file of this layout.

        Raises:
            CheckpointError: If a file of this layout is damaged or missing.
        """

    @abc.abstractmethod
    def rows(self, head: Head) -> list[Weight]:
        """Returns the weight table of the layers above the backbone.

        Args:
            head: The family's head for the task.
        """

    @abc.abstractmethod
    def class_name(self, family: Family, class_suffix: str) -> str:
        """Returns the class of transformers that config.json names under `architectures`.

        Args:
            family: The family of the model.
            class_suffix: Suffix of the task's classes, such as "ForSequenceClassification".
        """

    @abc.abstractmethod
    def opens_in(self, family: Family, class_suffix: str) -> str:
        """Returns the class that opens such a folder; the arguments are those of `class_name`."""

    @abc.abstractmethod
    def write(
        self, folder: Path, model: Any, family: Family, weights: WeightWriter, max_length: int
    ) -> None:
        """Writes the weights, and the files that only this layout has.

        Config, tokenizer and model card are the same in all layouts and not written here.

        Args:
            folder: The folder to write into.
            model: A FineTuneModel.
            family: The family of the model.
            weights: Writes the weight files.
            max_length: Maximum number of tokens of a text.

        Raises:
            CheckpointError: If a variable of the model has no row in the weight table.
            ModelError: If a value is too large for the dtype of the file.
            OSError: If a file cannot be written.
        """
