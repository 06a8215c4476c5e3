"""What every task has to say of itself."""

import abc
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from finetune_tf.architectures import Backbone
from finetune_tf.base.labels import Labels
from finetune_tf.checkpoints.layouts import TRANSFORMERS, Layout
from finetune_tf.errors import DataError, ModelError
from finetune_tf.tasks.encoded import Encoded
from finetune_tf.tasks.feature import IGNORED as IGNORED

#: What the outputs of a model are, by which losses, metrics and presets are chosen:
#: "classes": logits over classes, one of which is right for a text, a token or an end of an answer;
#: "several": a logit for each label, any number of which may be right;
#: "yes_no": one logit for each text, for a single label that is right or not;
#: "number": a number for each text;
#: "vectors": a vector for each text.
Kind = Literal["classes", "several", "yes_no", "number", "vectors"]


class Columns(Protocol):
    """What a task reads of examples."""

    columns: dict[str, list]
    name: str
    places: Any  # where rows stand in their source; see `data.places.Places`

    def __len__(self) -> int: ...


class HeadParts(Protocol):
    """What a task reads of a family's head; see `checkpoints.family.Head`."""

    weights: Any
    dropout: float
    transform: Any
    pooling: str


class Task(abc.ABC):
    """A task with its labels: its head, how examples become inputs, how outputs are read.

        task = TextClassification(Labels(["negative", "positive"]))

    Args:
        labels: Names of the outputs, in logit order; None where they have none, or where nothing
            is asked that depends on them.

    Attributes:
        labels: As given.
        name: As the Hugging Face pipeline is called.
        class_suffix: Of the PyTorch classes: "ForSequenceClassification".
        has_labels: Whether the outputs have names.
        columns: The columns of examples that the task reads, the ones it needs first.
        needs: Those it cannot do without; empty where that is the first one.
        target_column: The one with what is right.
        output_layers: Names of the layers that always count as head.
        poolings: The poolings that a user may ask for; empty where nothing is pooled.
        token_axis: The axis of a row's output that runs over its tokens, the row's own axis not
            counted; None where there is none.
        usual_length: Tokens a row gets unless the user says otherwise; None for as many as the
            model can take.
        options: What `predict` may be given besides columns, for `describe`.
        usage: A call of `predict`, for model cards.
        encode_options: What `batches` may be given besides, for `encode`.
        reduces_with_targets: Whether `reduce_outputs` needs the targets.
        targets_are_positions: Whether a target is a token of the row, so that the classes are the
            tokens of a batch.
        target_title: What one target is, for messages.
        target_advice: What to do about a target that the model has no output for.
    """

    name: ClassVar[str]
    class_suffix: ClassVar[str]
    has_labels: ClassVar[bool] = False
    columns: ClassVar[tuple[str, ...]]
    needs: ClassVar[tuple[str, ...]] = ()
    target_column: ClassVar[str]
    output_layers: ClassVar[tuple[str, ...]] = ("classifier",)
    poolings: ClassVar[tuple[str, ...]] = ()
    token_axis: ClassVar[int | None] = None
    usual_length: ClassVar[int | None] = None
    options: ClassVar[tuple[str, ...]] = ()
    usage: ClassVar[str] = 'ft.predict(model, ["…"])'
    encode_options: ClassVar[tuple[str, ...]] = ()
    reduces_with_targets: ClassVar[bool] = False
    targets_are_positions: ClassVar[bool] = False
    target_title: ClassVar[str] = "A label"
    target_advice: ClassVar[str] = (
        "Correct the data, or load the model with as many labels as the data have: ft.load(…, "
        "labels=train.labels)."
    )

    def __init__(self, labels: Labels | None = None) -> None:
        self.labels = labels

    @property
    @abc.abstractmethod
    def output_kind(self) -> Kind:
        """What the outputs of the model are."""

    @property
    def evaluator(self) -> str:
        """The row of `evaluation.measures.EVALUATORS` that metrics and baselines come from."""
        return self.name

    @property
    def monitor(self) -> tuple[str, str]:
        """What tells the best epoch on the validation examples, and whether "min" or "max" is."""
        return "val_accuracy", "max"

    @abc.abstractmethod
    def outputs(
        self,
        backbone: Backbone,
        head: HeadParts,
        config: Mapping[str, Any],
        pooling: str | None,
        dtype: Any,
        modules: Any,
    ) -> Any:
        """Puts the head on a backbone.

        Args:
            backbone: With symbolic hidden states (batch, length, features).
            head: What the family has for this task.
            config: A complete Hugging Face config.
            pooling: How a text becomes one vector, or None.
            dtype: Keras dtype policy.
            modules: What sentence-transformers does behind the transformer; see
                `checkpoints.layouts.Modules`.

        Returns:
            Symbolic outputs, float32.

        Raises:
            CheckpointError: If the checkpoint asks for something that is not supported.
        """

    @abc.abstractmethod
    def encode(self, examples: Columns, tokenizer: Any, max_length: int) -> Encoded:
        """Token ids and targets of examples.

        Args:
            examples: With (some of) the task's columns.
            tokenizer: A fast tokenizer of transformers.
            max_length: Tokens a row may have, special ones included.

        Raises:
            DataError: If an example does not fit the task or the labels.
        """

    @abc.abstractmethod
    def targets(self, examples: Columns) -> Any:
        """What is right, one for each example, as the task's measure takes it.

        Raises:
            DataError: If a target is none that the model can give.
        """

    @abc.abstractmethod
    def decide(self, rows: list[np.ndarray], encoded: Encoded, examples: Columns) -> Any:
        """What the model says, one for each example, in the form of `targets`.

        Args:
            rows: What the model gave for each row of `encoded`, without padding.
            encoded: What `encode` made of the examples.
            examples: The examples.
        """

    @abc.abstractmethod
    def describe(self, rows: list[np.ndarray], encoded: Encoded, examples: Columns) -> list:
        """What the model says, one for each example, as a person wants to read it.

        Args:
            rows: As for `decide`.
            encoded: As for `decide`.
            examples: As for `decide`.
        """

    def as_json(self, described: Any) -> dict[str, Any]:
        """One of the predictions of `describe` as a JSON object, for the command line."""
        return vars(described)

    def prepare_test(self, examples: Any, tokenizer: Any, max_length: int, seed: int) -> Any:
        """Test examples that ask the same of every model, where that is drawn at random.

        Args:
            examples: `Examples`.
            tokenizer: As for `encode`.
            max_length: As for `encode`.
            seed: Of the draw.
        """
        return examples

    def reduce_outputs(self, outputs: Any, targets: Any) -> Any:
        """What is kept of a batch's outputs, where all of them would fill the memory.

        Args:
            outputs: (batch, …).
            targets: Of the batch, for a task that `reduces_with_targets`; None where there are
                none.

        Returns:
            (batch, …), with the same token axis.
        """
        return outputs

    def named(self, outputs: Any) -> dict[str, Any]:
        """A model's outputs by the names that Hugging Face's classes give them, for `export`.

        Args:
            outputs: Of a batch.
        """
        return {"logits": outputs}

    def asked(self, texts: Any, text_pair: Any = None, **columns: Any) -> dict[str, Any]:
        """The columns of examples that a user wants predictions for.

        Args:
            texts: The first argument of `predict`: one text or several.
            text_pair: The second one.
            **columns: Whatever else it was given, by name.

        Raises:
            DataError: If something is given that the task does not take.
        """
        if columns:
            raise DataError(
                f"predict for {self.name} takes texts and text_pair, found "
                f"{', '.join(sorted(columns))}."
            )
        return {"text": texts} if text_pair is None else {"text": texts, "text_pair": text_pair}

    def row_length(self, limit: int) -> int:
        """Tokens a row gets unless the user says otherwise; `limit` is what the model can take."""
        return min(self.usual_length or limit, limit)

    def read_predictions(self, values: list, examples: Any) -> Any:
        """Predictions that somebody else made, in the form of `decide`.

        Args:
            values: One for each example; by default whatever the target column may hold.
            examples: What they are about.

        Raises:
            DataError: If they are none that the model could have made.
        """
        columns = {**examples.columns, self.target_column: values}
        labels = examples.labels if self.labels is None else self.labels
        return self.targets(type(examples)(columns, labels, "the baseline's predictions"))

    def has_outputs_of(self, other: "Task") -> bool:
        """Whether predictions of a model for another task can be compared with this one's.

        Args:
            other: With the labels of the other model, in any order.
        """
        same = set(self.labels or ()) == set(other.labels or ())
        return self.name == other.name and self.evaluator == other.evaluator and same

    def reordered(self, predictions: Any, wanted: Labels | None) -> Any:
        """Predictions in the order of the same labels in another order.

        Args:
            predictions: From `decide`.
            wanted: The labels in the other order.
        """
        return predictions

    def config_keys(self) -> dict[str, Any]:
        """What the task writes into the config."""
        return {} if self.labels is None else label_keys(self.labels)

    def layout(self, pooling: str | None) -> Layout:
        """The layout of the folder that such a model is saved in.

        Args:
            pooling: How a text becomes one vector, or None.
        """
        return TRANSFORMERS

    def max_length(self, modules: Any) -> int | None:
        """Tokens that a checkpoint wants texts cut to for this task; None for no wish.

        Args:
            modules: As for `outputs`.
        """
        return None

    def require(self, examples: Columns) -> None:
        """Checks that examples have the columns that the task cannot do without.

        Raises:
            ModelError: If one is missing.
        """
        needed = self.needs or self.columns[:1]
        if not all(column in examples.columns for column in needed):
            named = ", ".join(f'{column}="…"' for column in needed)
            fitting = [t.name for t in Task.__subclasses__() if t.target_column in examples.columns]
            hint = f" With these columns the task can be {', '.join(fitting)}." if fitting else ""
            raise ModelError(
                f"The task {self.name} reads the columns {', '.join(self.columns)}, but "
                f"{examples.name} has {', '.join(examples.columns)}. Name them when reading it, "
                f"for example from_jsonl(path, {named}).{hint}"
            )


def label_keys(labels: Labels) -> dict[str, Any]:
    """The keys of a Hugging Face config that name labels."""
    return {
        "id2label": {str(i): name for i, name in enumerate(labels)},
        "label2id": {name: i for i, name in enumerate(labels)},
    }
