"""Corpora larger than memory: encoded part by part into files, batched from there."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_tf.base.arguments import check
from finetune_tf.base.files import unfinished_folder
from finetune_tf.base.paths import absolute, read_whole
from finetune_tf.base.spelling import names_checked
from finetune_tf.data.examples import Examples
from finetune_tf.data.token_format import FILES, maker, read_folder, write_folder
from finetune_tf.errors import DataError
from finetune_tf.messages import say
from finetune_tf.tasks import Encoded, task_options

if TYPE_CHECKING:
    import tensorflow as tf

    from finetune_tf.data.array_dataset import ArrayDataset


@dataclass(frozen=True, eq=False)
class TokenFiles:
    """Encoded rows in a folder, read when a batch needs them.

    Attributes:
        encoded: The rows. Only their lengths and the targets of items are in memory.
        about: The contents of tokens.json: how the rows were made, and how many there are.
        name: The name in messages.
    """

    encoded: Encoded
    about: dict[str, Any]
    name: str

    def __len__(self) -> int:
        return len(self.encoded)

    @names_checked
    def batches(
        self,
        model: Any,
        batch_size: int = 32,
        shuffle: bool = False,
        seed: int = 0,
        drop_remainder: bool = False,
        tokens_per_batch: int | None = None,
    ) -> "tf.data.Dataset | ArrayDataset":
        """Batches by length, as `Examples.batches` makes them.

        The prefix that the rows were written with is recorded in the config of the model, so that
        predictions have it as well.

        Args:
            model: A model with the task, tokenizer and labels that the rows were made with.
            batch_size: As in `Examples.batches`.
            shuffle: As in `Examples.batches`.
            seed: As in `Examples.batches`.
            drop_remainder: As in `Examples.batches`.
            tokens_per_batch: As in `Examples.batches`.

        Raises:
            DataError: If the rows were made for another model.
        """
        check(batch_size=batch_size, seed=seed, tokens_per_batch=tokens_per_batch)
        from finetune_tf.data.batching import batches_of

        wanted = maker(model)
        made_by = self.about["made_by"]
        different = [name for name, value in wanted.items() if made_by.get(name) != value]
        if different:
            raise DataError(
                f"The tokens in {self.name} were made with another {' and '.join(different)} than "
                "this model has. Make them again: ft.data.write_tokens(parts, model, folder)."
            )
        # A file of an earlier version has no params.
        model.task.adopt_params(self.about.get("params", {}), model.config)
        size = model.config.get("vocab_size")
        if size is not None and self.about.get("largest_id", 0) >= size:
            raise DataError(
                f"The tokens in {self.name} go up to the id {self.about['largest_id']}, but the "
                f"model's token embedding table has {size:,} rows. Make room for them before the "
                "first fit: model.resize_token_embeddings(len(model.tokenizer))."
            )
        return batches_of(
            self.encoded,
            model,
            batch_size,
            self.about["max_length"],
            shuffle=shuffle,
            seed=seed,
            drop_remainder=drop_remainder,
            tokens_per_batch=tokens_per_batch,
            name=self.name,
        )

    def __repr__(self) -> str:
        return f"<TokenFiles {self.name}: {len(self):,} rows, {self.about['tokens']:,} tokens>"


@names_checked(also=task_options)
def write_tokens(
    parts: Iterable[Examples],
    model: Any,
    folder: str | Path,
    max_length: int | None = None,
    **options: Any,
) -> TokenFiles:
    """Tokenizes a corpus part by part, so that only one part at a time is in memory.

    Args:
        parts: `Examples`, for instance from a generator that reads one file after the other. All
            need the same labels= if they have labels.
        model: From `finetune_tf.load`; its task, tokenizer and labels encode the rows.
        folder: Created or replaced, in one step, when all parts are written.
        max_length: As in `Examples.batches`.
        **options: As in `Examples.batches`, for the task.

    Returns:
        The files, whose `batches` reads them.

    Raises:
        DataError: If there are no parts, a part does not fit the task, some have labels and
            others not, one cannot be read, or the task samples other rows in each epoch
            (fill-mask).
        DataTypeError: If a part is not `Examples`.
        CheckpointError: If the folder cannot be written.

    Example:
        >>> files = ft.data.write_tokens([train], model, "tokens")
        >>> len(files)
        5
    """
    check(max_length=max_length)
    folder = absolute(folder)
    with unfinished_folder(folder, FILES) as beside:
        write_folder(parts, model, beside, max_length, options)
    found = read_tokens(folder)
    say(f"{folder}: {len(found):,} rows, {found.about['tokens']:,} tokens.")
    return found


@names_checked
def read_tokens(folder: str | Path) -> TokenFiles:
    """Opens the files that `write_tokens` wrote, without tokenizing again.

    Args:
        folder: The folder that was given to `write_tokens`.

    Raises:
        DataError: If it does not hold tokens.
    """
    folder = absolute(folder, DataError)
    return read_whole(folder, lambda: TokenFiles(*read_folder(folder), str(folder)))
