"""Corpora larger than memory: tokenized part by part into files, batched from there."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from finetune_tf.base.arguments import check
from finetune_tf.base.files import unfinished_folder
from finetune_tf.base.json_files import member, read_json
from finetune_tf.base.paths import absolute, read_whole
from finetune_tf.base.spelling import names_checked
from finetune_tf.data.examples import Examples
from finetune_tf.data.feature_store import map_array
from finetune_tf.data.rows import Rows, lengths_of
from finetune_tf.errors import DataError, DataTypeError
from finetune_tf.messages import say
from finetune_tf.tasks import Encoded, task_options

if TYPE_CHECKING:
    import tensorflow as tf

_ABOUT, _ENDS, _TARGETS = "tokens.json", "ends.npy", "targets.npy"
_STALE = (_ABOUT, _ENDS, "targets", "input_ids", "token_type_ids")


@dataclass(frozen=True, eq=False)
class TokenFiles:
    """Rows of numbers in a folder, which are read as batches need them.

    Attributes:
        encoded: The rows; only where they end and the targets of whole rows are in memory.
        about: What made them, and how many there are.
        name: What messages call them.
    """

    encoded: Encoded
    about: dict[str, Any]
    name: str

    def __len__(self) -> int:
        return len(self.encoded.features["input_ids"])

    @names_checked
    def batches(
        self,
        model: Any,
        batch_size: int = 32,
        shuffle: bool = False,
        seed: int = 0,
        drop_remainder: bool = False,
        tokens_per_batch: int | None = None,
    ) -> "tf.data.Dataset":
        """Batches by length, as `Examples.batches` makes them.

        Args:
            model: One whose task, tokenizer and labels are those that the rows were made with.
            batch_size: As in `Examples.batches`, like the others.
            shuffle: Likewise.
            seed: Likewise.
            drop_remainder: Likewise.
            tokens_per_batch: Likewise.

        Raises:
            DataError: If the rows were made for another model.
        """
        check(batch_size=batch_size, seed=seed, tokens_per_batch=tokens_per_batch)
        from finetune_tf.data.batching import batches_of

        wanted = _maker(model)
        made_by = self.about["made_by"]
        different = [name for name, value in wanted.items() if made_by.get(name) != value]
        if different:
            raise DataError(
                f"The tokens in {self.name} were made with another {' and '.join(different)} than "
                "this model has. Make them again: ft.data.write_tokens(parts, model, folder)."
            )
        size = model.config.get("vocab_size")
        if size is not None and self.about.get("largest_id", 0) >= size:
            raise DataError(
                f"The tokens in {self.name} go up to the id {self.about['largest_id']}, but the "
                f"model's word table has {size:,} rows. Make room for them before the first fit: "
                "model.resize_token_embeddings(len(model.tokenizer))."
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
    """Tokenizes a corpus part by part, so that never more than one part is in memory.

    Args:
        parts: `Examples`, such as a generator gives that reads one file after the other. All
            need the same labels= where they have labels.
        model: From `finetune_tf.load`; its task, tokenizer and labels do the encoding.
        folder: Made or replaced as a whole once all parts are through.
        max_length: As in `Examples.batches`.
        **options: As in `Examples.batches`, for the task.

    Returns:
        What `batches` comes from.

    Raises:
        DataError: If there are no parts, a part does not fit the task, some have labels and
            others not, one cannot be read, or the task draws other rows in each epoch (fill-mask).
        DataTypeError: If a part is something else.
        CheckpointError: If the folder cannot be written.
    """
    check(max_length=max_length)
    folder = absolute(folder)
    with unfinished_folder(folder, _STALE) as beside:
        _write(parts, model, beside, max_length, options)
    found = read_tokens(folder)
    say(f"{folder}: {len(found):,} rows, {found.about['tokens']:,} tokens.")
    return found


@names_checked
def read_tokens(folder: str | Path) -> TokenFiles:
    """What `write_tokens` wrote; nothing is tokenized again.

    Args:
        folder: As it was given to `write_tokens`.

    Raises:
        DataError: If it does not hold tokens.
    """
    folder = absolute(folder, DataError)
    return read_whole(folder, lambda: _read_folder(folder))


def _read_folder(folder: Path) -> TokenFiles:
    path = folder / _ABOUT
    if not os.path.isfile(path):
        raise DataError(f"{folder} holds no tokens: write them with ft.data.write_tokens first.")
    about = read_json(path, error=DataError)
    kinds = {"made_by": dict, "features": list, "pad_values": dict, "targets": str}
    kinds |= {"group": int, "max_length": int, "tokens": int}
    for key, kind in kinds.items():
        member(about, key, kind, path, error=DataError)
    ends = np.array(map_array(folder / _ENDS, (None,), np.integer, DataError))
    count = about["tokens"]
    if count < 1 or not len(ends) or ends[-1] != count or (np.diff(ends, prepend=0) < 0).any():
        raise _damaged(folder / _ENDS)

    def rows(name: str) -> Rows:
        file = folder / f"{name}.bin"
        if not file.is_file() or file.stat().st_size != 4 * count:
            raise _damaged(file)
        return Rows(np.memmap(file, "int32", "r", shape=(count,)), ends)

    features = about["features"]
    is_known = set(map(str, features)) <= {"input_ids", "token_type_ids"}
    if not is_known or "input_ids" not in features or set(features) != set(about["pad_values"]):
        raise _damaged(path)
    numbers = [*about["pad_values"].values(), about["group"], about["max_length"]]
    if not all(isinstance(n, int) and n >= 0 for n in numbers) or 0 in numbers[-2:]:
        raise _damaged(path)
    targets = None
    if about["targets"] == "rows":
        targets = _targets(folder / _TARGETS, len(ends) // about["group"])
    elif about["targets"] == "tokens":
        targets = rows("targets")
    elif about["targets"] != "none":
        raise _damaged(path)
    encoded = Encoded(
        features={name: rows(name) for name in features},
        pad_values=about["pad_values"],
        targets=targets,
        group=about["group"],
    )
    return TokenFiles(encoded, about, str(folder))


def _targets(path: Path, count: int) -> np.ndarray:
    """Targets of whole rows, one an item and of any further shape."""
    for rest in range(3):
        with contextlib.suppress(DataError):
            return np.array(map_array(path, (count, *[None] * rest), np.number, DataError))
    raise _damaged(path)


def _damaged(path: Path) -> DataError:
    return DataError(
        f"{path} is damaged or missing. Write the tokens again: ft.data.write_tokens(parts, model, "
        "folder)."
    )


def _write(
    parts: Iterable[Examples], model: Any, folder: Path, max_length: int | None, options: dict
) -> None:
    lengths: list[np.ndarray] = []
    targets: list[np.ndarray] = []
    kinds: set[str] = set()
    first: Encoded | None = None
    largest = 0
    with contextlib.ExitStack() as stack:
        files: dict[str, BinaryIO] = {}
        for part in _read(parts):
            if not isinstance(part, Examples):
                raise DataTypeError(
                    f"write_tokens takes an iterable of Examples, found a {type(part).__name__} in "
                    "it. One Examples alone stands in brackets: [examples]."
                )
            encoded = part.encoded(model, max_length, **options)
            if encoded.draw is not None:
                raise DataError(
                    f"{model.task.name} draws other rows in each epoch, which files cannot hold. "
                    "Fit on one part after the other instead."
                )
            first = first or encoded
            columns = dict(encoded.features)
            kinds.add(_kind(encoded.targets))
            if len(kinds) > 1:
                raise DataError(
                    f"{part.name} differs from the parts before it: either all have labels or none."
                )
            if kinds == {"tokens"}:
                columns["targets"] = encoded.targets
            elif kinds == {"rows"}:
                targets.append(encoded.targets)
            largest = max([largest, *(int(row.max(initial=0)) for row in columns["input_ids"])])
            for name, rows in columns.items():
                if name not in files:
                    files[name] = stack.enter_context(open(folder / f"{name}.bin", "wb"))
                files[name].write(np.concatenate(rows).astype("int32", copy=False))
            lengths.append(lengths_of(encoded.features["input_ids"]))
    if first is None:
        raise DataError("There are no parts, so there is nothing to tokenize.")
    ends = np.cumsum(np.concatenate(lengths))
    np.save(folder / _ENDS, ends)
    if targets:
        np.save(folder / _TARGETS, np.concatenate(targets))
    about = {
        "made_by": _maker(model),
        "features": sorted(first.features),
        "pad_values": first.pad_values,
        "targets": kinds.pop(),
        "group": first.group,
        "max_length": max_length or model.max_length,
        "tokens": int(ends[-1]),
        "largest_id": largest,
    }
    (folder / _ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def _read(parts: Iterable[Examples]) -> Iterator[Examples]:
    try:
        yield from parts
    except OSError as error:  # of the caller's files, not of those that are written here
        raise DataError(f"A part of the corpus cannot be read: {error}.") from error


def _kind(targets: Any) -> str:
    if targets is None:
        return "none"
    return "rows" if isinstance(targets, np.ndarray) else "tokens"


def _maker(model: Any) -> dict[str, Any]:
    """What rows depend on besides the texts."""
    tokenizer = model.tokenizer.backend_tokenizer.to_str()
    return {
        "task": model.task.name,
        "tokenizer": hashlib.sha256(tokenizer.encode()).hexdigest()[:16],
        "labels": None if model.labels is None else list(model.labels),
    }
