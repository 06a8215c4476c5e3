"""What every task defines."""

import abc
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any, ClassVar, Literal

import numpy as np

from finetune_tf.architectures import Backbone
from finetune_tf.base.labels import Labels
from finetune_tf.errors import DataError, ModelError
from finetune_tf.tasks.conventions import Conventions
from finetune_tf.tasks.decisions import Decisions
from finetune_tf.tasks.encoded import Encoded
from finetune_tf.tasks.explained import Aim, Word
from finetune_tf.tasks.feature import IGNORED as IGNORED
from finetune_tf.tasks.interfaces import Columns, HeadParts, Kind


class Task(Conventions, abc.ABC):
    """A task with its labels: the head, how examples are encoded, how outputs are decoded.

    What other libraries call it, and how they save its models, is in `Conventions`.

        task = TextClassification(Labels(["negative", "positive"]))

    Args:
        labels: Names of the outputs, in logit order; None if the outputs have no names, or if
            nothing is asked of the task that depends on them.
        config: The complete config of the model; may be left out in the same case.

    Attributes:
        labels: As given.
        config: As given; empty if it was left out.
        has_labels: Whether the outputs have names.
        has_trained_labels: Whether a trained head fixes the labels; they are free where labels are
            texts that the model reads.
        reads_clips: Whether an example is a video.
        takes_prompts: Whether labels are described by texts, the prompts.
        columns: The columns of examples that the task reads, required ones first.
        needs: The required columns; by default the first one of `columns`.
        input_forms: The sets of columns that an input may have in predictions, the most usual one
            first; by default the columns without targets, all or the required ones.
        target_column: The column with the targets.
        output_layers: Names of the layers that always belong to the head.
        poolings: The poolings that a user may ask for; empty if nothing is pooled.
        token_axis: The axis of a row's output that runs over its tokens, not counting the axis of
            rows; None if there is none.
        usual_length: Tokens that a row may have by default; None for as many as the model accepts.
        options: Arguments of `predict` that are passed to `describe`.
        preprocessor: The attribute of a model that turns examples into inputs, which `encode` gets:
            "tokenizer", "image_processor", or "processor" with both.
        scores_tokens: Whether `reduce_outputs` returns what `token_scores` does.
        encode_options: Arguments of `batches` that are passed to `encode`.
        writes_targets: Whether the targets are texts, so that `encode` has an argument
            `target_tokenizer`.
        reduces_with_targets: Whether `reduce_outputs` needs the targets.
        targets_are_positions: Whether a target is a token of the row, so that the classes are the
            tokens of a batch.
        targets_are_next_tokens: Whether the target of a token is the one after it.
        target_title: What one target is, for messages.
        target_advice: What to do about a target that the model has no output for.
        can_explain: Whether `explained` and `explained_score` say what explanations explain.
    """

    has_labels: ClassVar[bool] = False
    has_trained_labels: ClassVar[bool] = True
    reads_clips: ClassVar[bool] = False
    takes_prompts: ClassVar[bool] = False
    columns: ClassVar[tuple[str, ...]]
    needs: ClassVar[tuple[str, ...]] = ()
    input_forms: ClassVar[tuple[tuple[str, ...], ...]] = ()
    target_column: ClassVar[str]
    output_layers: ClassVar[tuple[str, ...]] = ("classifier",)
    poolings: ClassVar[tuple[str, ...]] = ()
    token_axis: ClassVar[int | None] = None
    usual_length: ClassVar[int | None] = None
    options: ClassVar[tuple[str, ...]] = ()
    encode_options: ClassVar[tuple[str, ...]] = ()
    writes_targets: ClassVar[bool] = False
    preprocessor: ClassVar[Literal["tokenizer", "image_processor", "processor"]] = "tokenizer"
    reduces_with_targets: ClassVar[bool] = False
    scores_tokens: ClassVar[bool] = False
    targets_are_positions: ClassVar[bool] = False
    targets_are_next_tokens: ClassVar[bool] = False
    can_explain: ClassVar[bool] = False
    target_title: ClassVar[str] = "A label"
    target_advice: ClassVar[str] = (
        "Correct the data, or load the model with as many labels as the data have: ft.load(…, "
        "labels=train.labels)."
    )

    def __init__(
        self, labels: Labels | None = None, config: Mapping[str, Any] | None = None
    ) -> None:
        self.labels, self.config = labels, {} if config is None else config

    @property
    @abc.abstractmethod
    def output_kind(self) -> Kind:
        """What the outputs of the model are."""

    @property
    def problem_type(self) -> str | None:
        """The problem type of the labels, for tasks that have several; None for the others."""
        return None

    @property
    def has_token_outputs(self) -> bool:
        """Whether the outputs are those of tokens, so that a row of several texts has them all.

        Otherwise they are those of a text, even if they run over its tokens.
        """
        return self.token_axis == 0

    @property
    def title(self) -> str:
        """What the model does, for messages and model cards."""
        return self.problem_type or self.name

    @property
    def evaluator(self) -> str:
        """The key in `evaluation.evaluators.registry.EVALUATORS` of its metrics and baselines."""
        return self.name

    @property
    def shared_evaluator(self) -> str:
        """The key of the evaluator where this model is compared with one of another evaluator."""
        return self.evaluator

    @property
    def monitor(self) -> tuple[str, str]:
        """The value that the best epoch is chosen by, and whether "min" or "max" is best."""
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
            backbone: A backbone with symbolic hidden states (batch, length, features).
            head: The head of the family for this task.
            config: A complete Hugging Face config.
            pooling: How the vectors of a text are pooled, or None.
            dtype: Keras dtype policy.
            modules: The modules of sentence-transformers after the transformer; see
                `checkpoints.layouts.Modules`.

        Returns:
            Symbolic outputs, float32.

        Raises:
            CheckpointError: If the checkpoint requires something that is not supported.
        """

    def stores_labels(self, config: Mapping[str, Any]) -> bool:
        """Whether the label names in a config are meant for this task.

        Args:
            config: The config of a checkpoint.
        """
        return True

    def require_labels(self, labels: Labels | None) -> None:
        """Raises an error if the task cannot have these labels, for tasks with free labels.

        Args:
            labels: The labels; None if there are none.
        """

    def apply_options(self, options: Mapping[str, Any], model: Any) -> dict[str, Any]:
        """Applies options that change the model or its tokenizers, such as languages.

        Args:
            options: The options that the user gave; each is one of `encode_options`.
            model: The model.

        Returns:
            The other options, for `complete_options`.
        """
        return dict(options)

    def complete_options(
        self, options: Mapping[str, Any], config: MutableMapping[str, Any]
    ) -> dict[str, Any]:
        """Completes the options of `encode` with what the config of the model specifies.

        An option that predictions have to share with training, such as a prefix, is recorded in
        the config.

        Args:
            options: The options that the user gave; each is one of `encode_options`.
            config: The config of the model, which is saved with it.

        Returns:
            The arguments for `encode`.
        """
        return dict(options)

    def shared_params(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """What encoded rows and the predictions of a model that is trained on them have to share.

        Args:
            config: The config of the model that the rows were encoded for.

        Returns:
            Values for `adopt_params`, which JSON can hold.
        """
        return {}

    def adopt_params(self, params: Mapping[str, Any], config: MutableMapping[str, Any]) -> None:
        """Records in the config of a model what the rows that it is trained on were encoded with.

        Args:
            params: The result of `shared_params`.
            config: The config of the model, which is saved with it.
        """

    def prompt_prefix(self, config: Mapping[str, Any]) -> str:
        """The text in front of each prompt of `generate`, with which the model was trained.

        Args:
            config: The config of the model.
        """
        return ""

    @abc.abstractmethod
    def encode(self, examples: Columns, tokenizer: Any, max_length: int | None) -> Encoded:
        """Encodes examples as token ids, or as pixels, and targets.

        Args:
            examples: Examples with (some of) the task's columns.
            tokenizer: A fast tokenizer of transformers; for images, the processor of the model.
            max_length: Tokens that a row may have, special ones included; None for images.

        Raises:
            DataError: If an example does not fit the task or the labels.
        """

    @abc.abstractmethod
    def targets(self, examples: Columns) -> Any:
        """The targets, one for each example, in the form that the task's evaluator expects.

        Raises:
            DataError: If the model has no output for a target.
        """

    def predict_rows(
        self,
        model: Any,
        encoded: Encoded,
        batch_size: int,
        forward: Callable[..., list[np.ndarray]],
    ) -> list[np.ndarray]:
        """Computes what the model predicts for each encoded row.

        All predictions and evaluations go through this method. By default the prediction is the
        output of one forward pass; a task that generates text overrides it with a decoding loop.

        Args:
            model: The model.
            encoded: The rows from `encode`.
            batch_size: Rows in a batch.
            forward: Runs the model over rows, in batches of that size, and returns its outputs
                after `reduce_outputs`, in the order of the rows, float32 and without padding. With
                `part=`, a Keras model on some of its layers, it runs that one.

        Returns:
            One array for each row of `encoded`, as `decide` and `describe` expect them.
        """
        return forward(encoded)

    @abc.abstractmethod
    def decide(self, rows: list[np.ndarray], encoded: Encoded, examples: Columns) -> Any:
        """Converts predictions to the form of `targets`, one for each example.

        Args:
            rows: The prediction for each row of `encoded`, from `predict_rows`.
            encoded: The examples after `encode`.
            examples: The examples.
        """

    @abc.abstractmethod
    def describe(self, rows: list[np.ndarray], encoded: Encoded, examples: Columns) -> list:
        """Converts predictions to the form that `predict` returns, one for each example.

        Args:
            rows: As for `decide`.
            encoded: As for `decide`.
            examples: As for `decide`.
        """

    @property
    def has_decisions(self) -> bool:
        """Whether the model chooses among labels, so that `decisions` is defined."""
        return False

    def decisions(self, rows: list[np.ndarray], encoded: Encoded, examples: Columns) -> Decisions:
        """The logits and targets of a model that chooses among labels.

        Args:
            rows: As for `decide`.
            encoded: As for `decide`.
            examples: As for `decide`, with targets.
        """
        raise NotImplementedError

    def as_json(self, described: Any) -> dict[str, Any]:
        """Converts a prediction of `describe` to a JSON object, for the command line."""
        return vars(described)

    def explained(
        self, rows: list[np.ndarray], encoded: Encoded, examples: Columns, targets: list
    ) -> list[Aim]:
        """Says which output is explained for each example, for tasks that `can_explain`.

        Args:
            rows: As for `decide`.
            encoded: As for `decide`.
            examples: As for `decide`.
            targets: What the user wants explained for each example; None for the prediction.

        Raises:
            ArgumentError: If the model has no output for a target.
        """
        raise NotImplementedError

    def explained_score(self, outputs: Any, index: Any) -> Any:
        """The number that is explained: the log-odds of what an `Aim` is about, or a number.

        Args:
            outputs: (batch, …) of the model.
            index: An integer tensor with `Aim.index`.

        Returns:
            (batch,).
        """
        raise NotImplementedError

    def explained_words(
        self, encoded: Encoded, row: int, examples: Columns, tokenizer: Any
    ) -> list[Word]:
        """The words of a row, as they are written in the texts of its example.

        Args:
            encoded: The examples after `encode`.
            row: The row.
            examples: The examples.
            tokenizer: The tokenizer that they were encoded with.
        """
        return []

    def prepare_test(self, examples: Any, tokenizer: Any, max_length: int, seed: int) -> Any:
        """Fixes what is random about test examples, so that all models get the same test.

        Args:
            examples: `Examples`.
            tokenizer: As for `encode`.
            max_length: As for `encode`.
            seed: Seed of the random choice.
        """
        return examples

    def reduce_outputs(self, outputs: Any, targets: Any) -> Any:
        """Reduces the outputs of a batch to what `decide` and `describe` need of them.

        Args:
            outputs: (batch, …).
            targets: The targets of the batch, for a task that `reduces_with_targets`; None if
                there are none.

        Returns:
            (batch, …), with the same token axis.
        """
        return outputs

    def questions(self, columns: dict[str, list]) -> dict[str, list]:
        """Returns the columns of examples without answers that are part of another column.

        Args:
            columns: The columns without the target column, which are to be predicted.
        """
        return columns

    def asked(self, texts: Any, text_pair: Any = None, **columns: Any) -> dict[str, Any]:
        """Converts the arguments of `predict` to columns of examples.

        Args:
            texts: The first argument: one text or several.
            text_pair: The second argument.
            **columns: The other columns that were given.

        Raises:
            DataError: If the task does not accept an argument.
        """
        if columns:
            raise DataError(
                f"predict for {self.name} takes texts and text_pair, found "
                f"{', '.join(sorted(columns))}."
            )
        return {"text": texts} if text_pair is None else {"text": texts, "text_pair": text_pair}

    def row_length(self, limit: int | None) -> int | None:
        """Tokens that a row may have by default; `limit` is the most that the model accepts.

        Both are None for a model of images.
        """
        return None if limit is None else min(self.usual_length or limit, limit)

    def read_predictions(self, values: list, examples: Any) -> Any:
        """Converts predictions of another method to the form of `decide`.

        Args:
            values: One for each example; by default in any form that the target column may have.
            examples: The examples.

        Raises:
            DataError: If the model could not make such a prediction.
        """
        columns = {**examples.columns, self.target_column: values}
        labels = examples.labels if self.labels is None else self.labels
        return self.targets(type(examples)(columns, labels, "the baseline's predictions"))

    def has_outputs_of(self, other: "Task") -> bool:
        """Whether the predictions of another model can be compared with those of this one.

        Args:
            other: The task of the other model. The order of its labels does not matter.
        """
        same = set(self.labels or ()) == set(other.labels or ())
        return self.name == other.name and self.evaluator == other.evaluator and same

    def reordered(self, predictions: Any, wanted: Labels | None) -> Any:
        """Reorders predictions for the same labels in another order.

        Args:
            predictions: Predictions from `decide`.
            wanted: The labels in the other order.
        """
        return predictions

    @classmethod
    def fits(cls, examples: Columns) -> bool:
        """Whether examples have the columns that the task needs, targets included."""
        needed = {*(cls.needs or cls.columns[:1]), cls.target_column}
        return needed <= examples.columns.keys()

    def require(self, examples: Columns) -> None:
        """Checks that examples have the required columns.

        Raises:
            ModelError: If one is missing.
        """
        needed = self.needs or self.columns[:1]
        if not all(column in examples.columns for column in needed):
            named = ", ".join(f'{column}="…"' for column in needed)
            fitting = [task.name for task in _kinds_of(Task) if task.fits(examples)]
            hint = f" With these columns the task can be {', '.join(fitting)}." if fitting else ""
            raise ModelError(
                f"The task {self.name} reads the columns {', '.join(self.columns)}, but "
                f"{examples.name} has {', '.join(examples.columns)}. Name them when reading it, "
                f"for example from_jsonl(path, {named}).{hint}"
            )


def _kinds_of(task: type[Task]) -> Iterator[type[Task]]:
    """The tasks that are derived from a class, without their common base classes."""
    for kind in task.__subclasses__():
        if "name" in vars(kind):
            yield kind
        yield from _kinds_of(kind)
