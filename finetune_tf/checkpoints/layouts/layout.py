"""What a layout of checkpoint folders has to say of itself."""

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
    """What stands behind the transformer.

    Attributes:
        pooling: "cls", "mean", another mode's name, or None if nothing says it.
        dense: Tensors of a Dense module, by `DENSE`'s names; empty without one.
        dense_size: How many numbers the Dense module gives; None without one.
        activation: Of the Dense module: the last part of the PyTorch class, such as "Identity".
        normalize: Whether vectors are scaled to the length 1.
        max_length: Tokens a text was cut to, or None.
        types: The modules in order, as the last parts of their class names; empty where no list
            of them is there.
        prompt: What is put before each text; empty for nothing.
        lower_case: Whether texts are put into lower case before the tokenizer sees them.
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
    """How the folder of a checkpoint is laid out, for the library that opens it.

    A task chooses the layout that its models are saved in (`Task.layout`). A folder is read by the
    first layout that knows it.

    A folder of PEFT's would be a third layout. `read` would know it by its adapter_config.json,
    which names the checkpoint that the adapters belong to; `rows` would be those of the adapters
    and of the modules that are saved whole; `write` would write adapter_config.json and
    adapter_model.safetensors, and nothing of the frozen model; `opens_in` would name one of peft's
    AutoPeftModel classes, and `class_name` the class of the model below.
    """

    @abc.abstractmethod
    def read(self, folder: Path) -> Modules | None:
        """What the files of this layout say of the modules behind the transformer.

        Args:
            folder: Of a checkpoint.

        Returns:
            None if the folder has no file of this layout.

        Raises:
            CheckpointError: If one of them is damaged or missing.
        """

    @abc.abstractmethod
    def rows(self, head: Head) -> list[Weight]:
        """Rows of the weight table for what stands above the backbone.

        Args:
            head: What the family has for the task.
        """

    @abc.abstractmethod
    def class_name(self, family: Family, class_suffix: str) -> str:
        """The class of transformers that config.json names.

        Args:
            family: Of the model.
            class_suffix: Of the task: "ForSequenceClassification".
        """

    @abc.abstractmethod
    def opens_in(self, family: Family, class_suffix: str) -> str:
        """The class that opens a folder of this layout; arguments as for `class_name`."""

    @abc.abstractmethod
    def write(
        self, folder: Path, model: Any, family: Family, weights: WeightWriter, max_length: int
    ) -> None:
        """Writes the weights, and the files that are particular to this layout.

        Args:
            folder: To write into. Config, tokenizer and model card are the same in all layouts and
                not written here.
            model: A FineTuneModel.
            family: Of the model.
            weights: Writes the files of weights.
            max_length: Tokens that a text is cut to.

        Raises:
            CheckpointError: If a variable of the model has no row in the weight table.
            ModelError: If a number is too large for the type of numbers of the file.
            OSError: If a file cannot be written.
        """
