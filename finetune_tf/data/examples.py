"""Examples: the data set that every source makes and that tasks and evaluation read."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from finetune_tf.base.arguments import check, shown
from finetune_tf.base.labels import Labels
from finetune_tf.base.spelling import names_checked
from finetune_tf.data.buckets import BUCKETS
from finetune_tf.data.checks import check_columns, list_of
from finetune_tf.data.columns import COLUMNS, Classes, values_of
from finetune_tf.data.copies import target_of
from finetune_tf.data.places import Places, shortened
from finetune_tf.data.splitting import held_out_rows
from finetune_tf.errors import DataError, DataTypeError, MissingRowError, ModelError
from finetune_tf.messages import say
from finetune_tf.tasks import Encoded, task_options
from finetune_tf.tasks.encoded import check_ids, preparer_of, tokenizer_of, warn_of_two_starts
from finetune_tf.tasks.text_vectors import require_complete_rows
from finetune_tf.tasks.unseen import say_class_numbers

if TYPE_CHECKING:
    import tensorflow as tf

    from finetune_tf.data.array_dataset import ArrayDataset


@dataclass(frozen=True, repr=False)
class Examples:
    """The rows of a data set, which are checked when the object is made.

    Attributes:
        columns: Values by column: "text", and optionally "text_pair" and "label"; or the columns
            of another task. Those in `data.columns.COLUMNS` are checked; a task may add others.
        labels: The names of the labels; None if there are none.
        name: Name of the data in messages.
        places: Where the rows are in their source, for messages; by default they are counted
            from 0.

    Raises:
        DataError: If there are no rows, columns differ in length, or a text or label is missing
            or wrong. The message names the first such rows and their number.
        DataTypeError: If a value has another type than its column, such as a number for a text.

    Example:
        >>> len(ft.data.Examples({"text": ["a good film", "a dull film"]}))
        2
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
        columns = {
            str(column): list_of(values, str(column), values_of(str(column)))
            for column, values in self.columns.items()
        }
        object.__setattr__(self, "columns", columns)
        check_columns(columns, self.name)
        places = self.places or Places(range(len(next(iter(columns.values())))))
        object.__setattr__(self, "places", places)
        for column in COLUMNS.values():
            if column.name in columns:
                columns[column.name] = column.check(columns[column.name], column.name, self)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, rows: int | slice | Sequence[int] | np.ndarray) -> Any:
        """One row as a dict for an int; `Examples` for a slice or a list of row numbers."""
        if isinstance(rows, int | np.integer):
            if not -len(self) <= rows < len(self):
                raise MissingRowError(
                    f"{self.name} has {len(self):,} rows, with the numbers from 0 to "
                    f"{len(self) - 1:,}; found {shown(rows)}."
                )
            return {column: values[rows] for column, values in self.columns.items()}
        numbers = range(len(self))[rows] if isinstance(rows, slice) else self._row_numbers(rows)
        # Of the same type, so that images that were checked are not checked again.
        picked = {column: type(v)(v[i] for i in numbers) for column, v in self.columns.items()}
        return type(self)(picked, self.labels, self.name, self.places.at(numbers))

    def _row_numbers(self, rows: Any) -> list[int]:
        """The row numbers in a list or array, or at the true values of a boolean mask."""
        try:
            return np.arange(len(self))[np.asarray(rows)].tolist() if len(rows) else []
        except (IndexError, TypeError):
            raise DataTypeError(
                f"Rows are chosen by a number, a slice, or a list of numbers from 0 to "
                f"{len(self) - 1:,}, found {shortened(rows)}."
            ) from None

    @names_checked
    def take(self, n: int) -> Self:
        """Returns the first `n` rows, or all if there are fewer."""
        check(n=n)
        return self[:n]

    @names_checked
    def shuffle(self, seed: int = 0) -> Self:
        """Returns the same rows in a random order, which `seed` determines."""
        check(seed=seed)
        return self[np.random.default_rng(seed).permutation(len(self))]

    @names_checked
    def split(self, fraction: float, seed: int = 0) -> tuple[Self, Self]:
        """Holds out a part of the rows, with the same shares of classes.

        Rows with the same texts stay in one part, as do rows with the same image or video, whatever
        their texts are. At least one row of each class stays in the first part. A class whose texts
        are all the same is therefore not held out.

        Args:
            fraction: Share of the rows that is held out, between 0 and 1.
            seed: Seed of the random choice.

        Returns:
            The remaining rows and the rows held out, each in the original order.

        Raises:
            DataError: If one of the two would be empty.

        Example:
            >>> remaining, held_out = train.split(0.25)
            >>> len(remaining) + len(held_out) == len(train)
            True
        """
        check(fraction=fraction, seed=seed)
        total = len(self)
        held_out = round(fraction * total)
        if not 0 < held_out < total:
            raise DataError(
                f"split({fraction!r}) of the {total:,} rows of {self.name} leaves one part empty. "
                "Choose a share between 0 and 1 that leaves a row to each."
            )
        is_held_out = held_out_rows(self.columns, *self._classes(), held_out, seed)
        if not is_held_out.any():
            raise DataError(
                f"No row of {self.name} can be held out: each class has one text or image only, "
                "or all rows have the same one. Add examples, or give those to hold out yourself "
                "(validation=… in finetune)."
            )
        return self[~is_held_out], self[is_held_out]

    def _classes(self) -> Classes:
        """The class of each row as text, and the labels of which each row is an example."""
        name = target_of(self.columns)
        classes = name and COLUMNS[name].target.classes
        if not classes:
            return [""] * len(self), [()] * len(self)
        return classes(self.columns[name], self.labels)

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
        augment: Any = None,
        augment_variants: int | None = None,
        balance: bool = False,
        packing: bool | int | str = False,
        **options: Any,
    ) -> "tf.data.Dataset | ArrayDataset":
        """Encodes the rows for a model and batches them by length.

        Args:
            model: A model from `finetune_tf.load`; its task, tokenizer and labels encode the rows.
            batch_size: Rows in a batch; if the rows are pairs for feature extraction, pairs.
            shuffle: Whether rows and batches are shuffled in each epoch. Without it, rows keep
                their order, as evaluation requires.
            seed: Seed of the order of each epoch.
            max_length: Tokens that a row may have; longer texts are truncated. By default what
                the model accepts; for question answering up to 384, because there a longer
                context becomes several rows.
            drop_remainder: Whether the last batch is left out if it is smaller than the others.
            tokens_per_batch: Tokens in a batch, padding included, instead of `batch_size` rows.
                Steps then take similar time and memory, whatever the lengths of the texts.
            buckets: Number of different lengths that batches may have (8). The lengths are chosen
                from the data. More lengths mean less padding and more compilation; a single one
                suits `compile(jit_compile=True)` on a GPU.
            augment: How images are changed at random in training, other ones in each epoch: "flip",
                "crop", "color", "randaugment", "mixup", "cutmix", a Keras preprocessing layer for
                levels from 0 to 255, or a list of these. Only with `shuffle`. With mixup and cutmix
                the targets are rows with the share of each class. Needs TensorFlow, also on JAX.
            augment_variants: With `augment` and a model from `cache_features`: how many variants of
                each image are made, 4 for example. The features of each are computed once, which
                takes as many times the memory, and epoch e has variant e modulo this number. `seed`
                determines the changes. Not for mixup and cutmix.
            balance: Whether an epoch has the same number of rows of each class: rows of rare
                classes are drawn several times, and of frequent classes a random part, another one
                in each epoch. The number of rows stays the same. With several labels for a row,
                its rarest label counts. Only with `shuffle`, for classes of complete rows.
            packing: Whether several short texts share a row, without attention between them (Krell
                et al. 2021). Outputs, losses and gradients are those of the texts alone, a few
                percent of the tokens are padding, and batches have one or two shapes instead of
                eight. `batch_size` is the number of texts of a batch on average. "auto" packs the
                batches of a training where that is possible and seems less work; a number is the
                tokens of a row, so that all batches have one shape. `model.predict` returns the
                outputs of texts in the order of the data, whatever their rows.
            **options: Options of the task. Fill-mask has `mask_rate` (0.15) and `whole_word`
                (False); with `shuffle` it masks other words in each epoch, and otherwise always
                the same. Question answering has `stride` (128), the number of tokens that
                neighbouring rows of a context share. Tasks from text to text have `prefix`, a text
                in front of each source, and `max_target_length`; predictions use them as well.
                Translation has `languages`, such as ("en", "de"), to select a prefix.

        Returns:
            A `tf.data.Dataset` of known cardinality; on JAX, an `ArrayDataset` of the same batches
            as NumPy arrays, which needs no TensorFlow (except with `augment`). A batch is
            (inputs, targets), or only the inputs if there are no labels. Inputs are int32 arrays
            (batch, length) by name, among them "attention_mask", 1 for tokens and 0 for padding.
            With `packing`, inputs are (rows, row length), with the positions of tokens in their
            texts as "position_ids"; if the model has one output for each text, "text_starts" (rows,
            places) says where texts begin, and targets and outputs are (rows * places, …). The
            target of an empty place is -100, or NaN where targets are numbers and no class indices.

        Raises:
            ArgumentError: If a number is out of range, such as a `batch_size` below 1, or `augment`
                or `balance` is unknown or does not fit.
            DataError: If a label is not one of the model's, or the task has no such option.
            MissingExtraError: If `augment` is given and TensorFlow is not installed.
            ModelError: If the model is not one of finetune_tf's or does not accept `max_length`.

        Example:
            >>> len(train.batches(model, batch_size=4)) > 0
            True
        """
        check(
            batch_size=batch_size,
            seed=seed,
            max_length=max_length,
            tokens_per_batch=tokens_per_batch,
            buckets=buckets,
            augment_variants=augment_variants,
            packing=packing,
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
            augment=augment,
            augment_variants=augment_variants,
            balance=balance,
            packing=packing,
        )

    @names_checked(also=task_options)
    def encoded(
        self, model: Any, max_length: int | None = None, targets: bool = True, **options: Any
    ) -> Encoded:
        """Encodes the rows as the model's task does; says how many texts were truncated.

        Args:
            model: A model from `finetune_tf.load`.
            max_length: Tokens that a row may have; by default what the model accepts, or the
                task's usual length if that is less.
            targets: Whether the targets are encoded too, if the examples have them.
            **options: As for `batches`.

        Raises:
            DataError: If an example does not fit the task or its labels, or the task has no such
                option.
            ModelError: If the model is not one of finetune_tf's or does not accept `max_length`.
        """
        check(max_length=max_length)
        if not all(hasattr(model, wanted) for wanted in ("task", "labels")):
            raise ModelError(
                f"batches(model) needs a model of finetune_tf.load(…), whose tokenizer encodes "
                f"the texts; found {type(model).__name__}."
            )
        task, examples = model.task, self
        length = self._row_length(model, max_length)
        task.require(self)
        if unknown := sorted(options.keys() - set(task.encode_options)):
            raise DataError(
                f"The task {task.name} has no option {', '.join(unknown)}; it has "
                f"{', '.join(task.encode_options) or 'none'}."
            )
        if not targets:
            columns = {k: v for k, v in self.columns.items() if k != task.target_column}
            examples = type(self)(columns, self.labels, self.name, self.places)
        elif task.target_column in self.columns:
            say_class_numbers(task.labels, self)
        config = getattr(model, "config", {})
        options = task.complete_options(task.apply_options(options, model), config)
        if task.writes_targets:
            options["target_tokenizer"] = model.target_tokenizer
        encoded = task.encode(examples, preparer_of(model), length, **options)
        if task.preprocessor == "image_processor":
            return encoded
        config = config.get("text_config", config)  # that of the encoder of texts
        size = config.get("vocab_size")
        sizes = {"input_ids": size, "decoder_input_ids": config.get("decoder_vocab_size") or size}
        check_ids(encoded, tokenizer_of(model), sizes, self.name)
        if "input_ids" in encoded.inputs:
            warn_of_two_starts(encoded.inputs["input_ids"].rows, tokenizer_of(model), self.name)
        if encoded.truncated:
            say(
                f"{self.name}: {encoded.truncated:,} of {len(self):,} texts are longer than "
                f"{encoded.limit or length} tokens and are truncated."
            )
        return encoded

    def _row_length(self, model: Any, max_length: int | None) -> int | None:
        """The tokens that a row may have; None for images."""
        limit = model.max_length
        if limit is None:
            if max_length is not None:
                raise ModelError("max_length= is for texts, but the model reads images.")
            return None
        length = model.row_length if max_length is None else max_length
        if not 0 < length <= limit:
            raise ModelError(
                f"max_length={max_length} does not fit: the model takes 1 to {limit} tokens."
            )
        require_complete_rows(model, length)
        return length

    def __repr__(self) -> str:
        content = f"{len(self):,} rows of {', '.join(self.columns)}"
        if self.labels is not None:
            content += f"; {self._describe_labels()}"
        return f"<Examples {self.name}: {content}>"

    def _describe_labels(self) -> str:
        values = self.columns.get("label")
        if self.labels.problem_type == "regression":
            scores = "" if values is None else f" from {min(values):g} to {max(values):g}"
            return f"scores {self.labels[0]!r}{scores}"
        kind = "several of " if self.labels.problem_type.startswith("multi") else ""
        if values is None or len(self.labels) > 10:
            return f"{kind}{len(self.labels)} labels"
        rows = values if kind else [[value] for value in values]
        counts = Counter(self.labels.index_of(value) for row in rows for value in row)
        numbers = ", ".join(f"{label} {counts[i]:,}" for i, label in enumerate(self.labels))
        return f"{kind}labels {numbers}"
