"""What Hugging Face's libraries call a task and its outputs, and how they save its models."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from finetune_tf.base.labels import Labels
from finetune_tf.checkpoints.layouts import TRANSFORMERS, Layout
from finetune_tf.tasks.interfaces import HeadParts
from finetune_tf.tasks.usage import Usage, make_usage


class Conventions:
    """The part of a task that other libraries determine.

    Attributes:
        labels: Names of the outputs, or None; see `Task`.
        name: Name of the Hugging Face pipeline.
        class_suffix: Suffix of the PyTorch classes, such as "ForSequenceClassification".
        auto_suffix: Suffix of the Auto… classes, such as "ForSeq2SeqLM"; None for that of the
            other classes.
        usage: Code for model cards.
        generates_text: Whether models continue prompts.
        has_old_classes: Whether `compat` has classes of transformers 4 for the task.
        is_in_transformers: Whether transformers has classes for the task.
        runs_in_all_engines: Whether models, which are encoders of texts, are exported to all
            formats and as int8.
        serves_texts: Whether an exported graph can read one text, or a pair, for each row.
        compares_texts: Whether the texts of a pair are rows of their own; see `compared`.
    """

    labels: Labels | None
    name: ClassVar[str]
    class_suffix: ClassVar[str]
    auto_suffix: ClassVar[str | None] = None
    usage: ClassVar[Usage] = make_usage()
    generates_text: ClassVar[bool] = False
    has_old_classes: ClassVar[bool] = True
    is_in_transformers: ClassVar[bool] = True
    runs_in_all_engines: ClassVar[bool] = False
    serves_texts: ClassVar[bool] = False
    compares_texts: ClassVar[bool] = False

    def named(self, outputs: Any) -> dict[str, Any]:
        """The outputs of a model by the names that Hugging Face's classes use, for `export`.

        Args:
            outputs: The outputs for a batch.
        """
        return {"logits": outputs}

    def unnamed(self, named: Mapping[str, Any]) -> Any:
        """The outputs of a model from those by name: the inverse of `named`.

        Args:
            named: Arrays by name, the only outputs of an exported graph.
        """
        (outputs,) = named.values()
        return outputs

    def compared(self, first: Any, second: Any) -> dict[str, Any]:
        """What an exported graph returns for pairs, where their texts are compared.

        Args:
            first: The outputs for the first texts.
            second: The outputs for the second texts.
        """
        raise NotImplementedError

    def serving(
        self, model: Any, forward: Callable[..., list[np.ndarray]]
    ) -> tuple[dict[str, Any], Callable[[dict[str, Any]], dict[str, Any]]]:
        """What `export` writes: a function, and its inputs.

        Args:
            model: The model, in float32.
            forward: As for `predict_rows`, for outputs that are constants of the graph.

        Returns:
            The symbolic inputs by name, and a function from tensors for them to outputs by name.
        """

        def serve(inputs: dict[str, Any]) -> dict[str, Any]:
            return self.named(model.call(inputs, training=False))

        return {tensor.name: tensor for tensor in model.inputs}, serve

    def usage_for(self, config: Mapping[str, Any]) -> Usage:
        """The code for the model card of a model.

        Args:
            config: The config of the model.
        """
        return self.usage

    def class_outputs(self, outputs: Any, hidden: Any, pooling: str | None) -> dict[str, Any]:
        """The fields of the output of Hugging Face's class for this task, for `compat`.

        Args:
            outputs: The outputs of the model for a batch.
            hidden: The last hidden states (batch, length, features).
            pooling: The pooling of the model.
        """
        return self.named(outputs)

    @classmethod
    def class_pooling(cls, head: HeadParts) -> str:
        """The pooling of Hugging Face's class for this task, whatever the checkpoint uses.

        Args:
            head: The head of the family for this task.
        """
        return "pooler"

    def config_keys(self) -> dict[str, Any]:
        """The keys of the config that the task sets."""
        return {} if self.labels is None else label_keys(self.labels)

    def layout(self, pooling: str | None) -> Layout:
        """The layout of the folder in which the model is saved.

        Args:
            pooling: The pooling of the model, or None.
        """
        return TRANSFORMERS

    def max_length(self, modules: Any) -> int | None:
        """The length in tokens to which the checkpoint truncates texts for this task, or None.

        Args:
            modules: As for `outputs`.
        """
        return None


def label_keys(labels: Labels) -> dict[str, Any]:
    """The keys of a Hugging Face config that name labels."""
    return {
        "id2label": {str(i): name for i, name in enumerate(labels)},
        "label2id": {name: i for i, name in enumerate(labels)},
    }
