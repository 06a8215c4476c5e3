"""Examples: the record that every source makes and that tasks and evaluation read."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from finetune_tf.base.arguments import check, shown
from finetune_tf.base.labels import Labels, label_text
from finetune_tf.base.spelling import names_checked
from finetune_tf.data.answer_columns import check_answers
from finetune_tf.data.buckets import BUCKETS
from finetune_tf.data.checks import (
    check_columns,
    check_labels,
    check_texts,
    check_words,
    list_of,
)
from finetune_tf.data.places import Places, shortened
from finetune_tf.data.splitting import held_out_rows
from finetune_tf.errors import DataError, DataTypeError, MissingRowError, ModelError
from finetune_tf.messages import say
from finetune_tf.tasks import Encoded, task_options
from finetune_tf.tasks.encoded import check_ids

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass(frozen=True, repr=False)
class Examples:
    """Rows of a data set, checked when built.

    Attributes:
        columns: Values by column: "text", and optionally "text_pair" and "label"; or the columns
            of another task, see `building.OTHER_COLUMNS`.
        labels: What the labels are called; None if there are none.
        name: What messages call this data.
        places: Where the rows stand in their source, for messages; by default they are counted
            from 0.

    Raises:
        DataError: If there are no rows, columns differ in length, or a text or label is missing
            or wrong. The message names the first such rows and their number.
        DataTypeError: If something else stands where texts are meant.
    """

    columns: dict[str, list]
    labels: Labels | None = None
    name: str = "examples"
    places: Places | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.columns, Mapping):
            raise DataTypeError(
                f"Examples takes a dict of columns, found {type(self.columns).__name__}. Lists "
                "become examples with from_arrays(text, label)."
            )
        columns = {str(column): list_of(v, str(column)) for column, v in self.columns.items()}
        object.__setattr__(self, "columns", columns)
        check_columns(columns, self.name)
        places = self.places or Places(range(len(next(iter(columns.values())))))
        object.__setattr__(self, "places", places)
        for column in ("text", "text_pair", "question", "context"):
            if column in columns:
                check_texts(columns[column], column, self.name, places)
        if "tokens" in columns:
            check_words(columns["tokens"], columns.get("tags"), self.name, places)
        if "answers" in columns:
            columns["answers"] = check_answers(
                columns["answers"], columns.get("context"), self.name, places
            )
        if "label" in columns:
            if self.labels is None:
                raise DataError(
                    f"{self.name} has a column 'label' but no labels= that name them. Build it "
                    "with from_arrays(text, label), which reads them off."
                )
            check_labels(columns["label"], self.labels, self.name, places)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, rows: int | slice | Sequence[int] | np.ndarray) -> Any:
        """One row as a dict for an int, else the `Examples` of a slice or of an index array."""
        if isinstance(rows, int | np.integer):
            if not -len(self) <= rows < len(self):
                raise MissingRowError(
                    f"{self.name} has {len(self):,} rows, with the numbers from 0 to "
                    f"{len(self) - 1:,}; found {shown(rows)}."
                )
            return {column: values[rows] for column, values in self.columns.items()}
        numbers = range(len(self))[rows] if isinstance(rows, slice) else self._numbers(rows)
        picked = {column: [v[i] for i in numbers] for column, v in self.columns.items()}
        return type(self)(picked, self.labels, self.name, self.places.at(numbers))

    def _numbers(self, rows: Any) -> list[int]:
        """Row numbers of a list of them, or of a mask of booleans."""
        try:
            return np.arange(len(self))[np.asarray(rows)].tolist() if len(rows) else []
        except (IndexError, TypeError):
            raise DataTypeError(
                f"Rows are chosen by a number, a slice, or a list of numbers from 0 to "
                f"{len(self) - 1:,}, found {shortened(rows)}."
            ) from None

    @names_checked
    def take(self, n: int) -> Self:
        """The first `n` rows, or all if there are fewer."""
        check(n=n)
        return self[:n]

    @names_checked
    def shuffle(self, seed: int = 0) -> Self:
        """The same rows in an order drawn from `seed`."""
        check(seed=seed)
        return self[np.random.default_rng(seed).permutation(len(self))]

    @names_checked
    def split(self, fraction: float, seed: int = 0) -> tuple[Self, Self]:
        """Holds out a part of the rows, with the same mix of classes.

        Rows of the same texts stay on one side, and of each class at least one row stays in the
        first part: a class whose texts are all the same is not held out.

        Args:
            fraction: Share of the rows held out, between 0 and 1.
            seed: Decides which.

        Returns:
            The remaining rows and the rows held out, each in the original order.

        Raises:
            DataError: If one of the two would be empty.
        """
        check(fraction=fraction, seed=seed)
        total = len(self)
        held_out = round(fraction * total)
        if not 0 < held_out < total:
            raise DataError(
                f"split({fraction!r}) of the {total:,} rows of {self.name} leaves one part empty. "
                "Choose a share between 0 and 1 that leaves a row to each."
            )
        is_held_out = held_out_rows(self.columns, *self._kinds(), held_out, seed)
        if not is_held_out.any():
            raise DataError(
                f"No row of {self.name} can be held out: each class has one text only, or all "
                "rows have the same text. Add examples, or give those to hold out yourself "
                "(validation=… in finetune)."
            )
        return self[~is_held_out], self[is_held_out]

    def _kinds(self) -> tuple[list[str], list[Any]]:
        """The class of each row as text, and the labels that its row is an example of."""
        if "tags" in self.columns:
            return [""] * len(self), [set(map(label_text, row)) for row in self.columns["tags"]]
        if "label" not in self.columns or self.labels.problem_type == "regression":
            return [""] * len(self), [()] * len(self)
        values, labels = self.columns["label"], self.labels
        if labels.problem_type == "single_label_classification":
            names = {value: (labels[labels.index_of(value)],) for value in set(values)}
            return [names[value][0] for value in values], [names[value] for value in values]
        rows = [[labels[labels.index_of(value)] for value in row] for row in values]
        return list(map(str, rows)), rows

    @names_checked(also=task_options)
    def batches(
        self,
        model: Any,
        batch_size: int = 32,
        shuffle: bool = False,
        seed: int = 0,
        max_length: int | None = None,
        drop_remainder: bool = False,
        tokens_per_batch: int | None = None,
        buckets: int = BUCKETS,
        **options: Any,
    ) -> "tf.data.Dataset":
        """Encodes the rows for a model and batches them by length.

        Args:
            model: From `finetune_tf.load`; its task, tokenizer and labels do the encoding.
            batch_size: Rows a batch; for feature extraction pairs, if the rows are pairs.
            shuffle: Mixes rows and batches anew in each epoch. Without it, rows keep their
                order, as evaluation needs.
            seed: Decides the order of each epoch.
            max_length: Tokens a row may have; longer texts lose their end. By default what
                the model can take, for question answering up to 384: there, longer contexts
                become several rows.
            drop_remainder: Leaves out the last batch if it is smaller than the others.
            tokens_per_batch: Instead of `batch_size` rows, as many as stay within so many tokens,
                padding included: steps of even work and memory, whatever the lengths.
            buckets: How many lengths batches may have (8); the best ones are chosen from the data.
                More of them mean less padding and more compiling; one suits
                `compile(jit_compile=True)` on a GPU.
            **options: What the task can be told besides: for fill-mask `mask_rate` (0.15) and
                `whole_word` (False). With `shuffle` it hides other words in each epoch, without
                it always the same. For question answering `stride` (128), the tokens that the
                rows of one context share with their neighbours.

        Returns:
            A `tf.data.Dataset` of known cardinality. A batch is (inputs, targets), or the inputs
            alone without labels; inputs are int32 arrays (batch, length) by name, among them
            "attention_mask", 1 for tokens and 0 for padding.

        Raises:
            ArgumentError: If a number is out of range: `batch_size` or `buckets` below 1.
            DataError: If a label is none of the model's, or the task has no such option.
            ModelError: If the model is not one of finetune_tf's or cannot take `max_length`.
        """
        check(
            batch_size=batch_size,
            seed=seed,
            max_length=max_length,
            tokens_per_batch=tokens_per_batch,
            buckets=buckets,
        )
        from finetune_tf.data.batching import batches_of

        encoded = self.encoded(model, max_length, **options)
        return batches_of(
            encoded,
            model,
            batch_size,
            max_length,
            shuffle=shuffle,
            seed=seed,
            drop_remainder=drop_remainder,
            tokens_per_batch=tokens_per_batch,
            buckets=buckets,
            name=self.name,
        )

    @names_checked(also=task_options)
    def encoded(
        self, model: Any, max_length: int | None = None, targets: bool = True, **options: Any
    ) -> Encoded:
        """The rows as numbers, as the model's task makes them; says how many had to be cut.

        Args:
            model: From `finetune_tf.load`.
            max_length: Tokens a row may have; by default what the model can take, or the task's
                usual length if that is less.
            targets: Whether what is right is encoded too, where it is known.
            **options: As for `batches`.

        Raises:
            DataError: If an example does not fit the task or its labels, or the task has no such
                option.
            ModelError: If the model is not one of finetune_tf's or cannot take `max_length`.
        """
        check(max_length=max_length)
        if not all(hasattr(model, wanted) for wanted in ("task", "tokenizer", "labels")):
            raise ModelError(
                f"batches(model) needs a model of finetune_tf.load(…), whose tokenizer encodes "
                f"the texts; found {type(model).__name__}."
            )
        limit = model.max_length
        length = model.task.row_length(limit) if max_length is None else max_length
        if not 0 < length <= limit:
            raise ModelError(
                f"max_length={max_length} does not fit: the model takes 1 to {limit} tokens."
            )
        task, examples = model.task, self
        task.require(self)
        if unknown := sorted(options.keys() - set(task.encode_options)):
            raise DataError(
                f"The task {task.name} has no option {', '.join(unknown)}; it has "
                f"{', '.join(task.encode_options) or 'none'}."
            )
        if not targets:
            columns = {k: v for k, v in self.columns.items() if k != task.target_column}
            examples = type(self)(columns, self.labels, self.name, self.places)
        encoded = task.encode(examples, model.tokenizer, length, **options)
        size = getattr(model, "config", {}).get("vocab_size")
        check_ids(encoded, model.tokenizer, size, self.name)
        if encoded.truncated:
            say(
                f"{self.name}: {encoded.truncated:,} of {len(self):,} texts are longer than "
                f"{length} tokens and lose their end."
            )
        return encoded

    def __repr__(self) -> str:
        told = f"{len(self):,} rows of {', '.join(self.columns)}"
        if self.labels is not None:
            told += f"; {self._labels_in_words()}"
        return f"<Examples {self.name}: {told}>"

    def _labels_in_words(self) -> str:
        values = self.columns.get("label")
        if self.labels.problem_type == "regression":
            scores = "" if values is None else f" from {min(values):g} to {max(values):g}"
            return f"scores {self.labels[0]!r}{scores}"
        kind = "several of " if self.labels.problem_type.startswith("multi") else ""
        if values is None or len(self.labels) > 10:
            return f"{kind}{len(self.labels)} labels"
        rows = values if kind else [[value] for value in values]
        counts = Counter(self.labels.index_of(value) for row in rows for value in row)
        told = ", ".join(f"{label} {counts[i]:,}" for i, label in enumerate(self.labels))
        return f"{kind}labels {told}"
