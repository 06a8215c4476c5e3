"""The folder in which `token_files` stores encoded rows.

It has one file of values for each feature, one file for each axis with the ends of its rows, the
targets of items in targets.npy, and tokens.json, which describes them.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from finetune_tf.base.json_files import member, read_json
from finetune_tf.data.examples import Examples
from finetune_tf.data.feature_store import map_array
from finetune_tf.data.rows import StoredRows, joined
from finetune_tf.errors import DataError, DataTypeError
from finetune_tf.tasks import IGNORED, Encoded
from finetune_tf.tasks.feature import MASKS, TOKENS, Feature, lengths_by_axis

#: The names of the files that `write_folder` may write, with "*" for any characters.
FILES = ("tokens.json", "ends.npy", "ends_*.npy", "targets.npy")
FILES += ("input_ids.bin", "token_type_ids.bin")
_ABOUT = "tokens.json"
_ENDS = {axis: "ends.npy" if axis == TOKENS else f"ends_{axis}.npy" for axis in MASKS}
_PER_ITEM = {"axis": None}  # how tokens.json describes the targets in targets.npy
_DTYPES = {np.dtype(code).name for code in "?bBhHiIlLqQefd"}


def read_folder(folder: Path) -> tuple[Encoded, dict[str, Any]]:
    """Opens the rows of a folder; returns them and the contents of tokens.json.

    Raises:
        DataError: If the folder holds no rows, or a file is damaged.
    """
    path = folder / _ABOUT
    if not os.path.isfile(path):
        raise DataError(f"{folder} holds no tokens: write them with ft.data.write_tokens first.")
    about = read_json(path, error=DataError)
    is_first_format = "pad_values" in about
    kinds = {"made_by": dict, "group": int, "max_length": int, "tokens": int}
    if is_first_format:
        kinds |= {"features": list, "pad_values": dict, "targets": str}
    else:
        kinds |= {"rows": int, "inputs": dict, "targets": dict}
    for key, kind in kinds.items():
        member(about, key, kind, path, error=DataError)
    if is_first_format:
        about = _in_this_format(about, folder)
    counts = [about[name] for name in ("group", "max_length", "rows")]
    if not all(isinstance(n, int) and n > 0 for n in counts) or not about["inputs"]:
        raise _damaged(path)
    ends: dict[str, np.ndarray] = {}

    def feature(name: str, record: Any) -> Feature:
        if not name.isidentifier() or not _is_record(record):
            raise _damaged(path)
        axis, dtype = record["axis"], np.dtype(record["dtype"])
        if axis is not None and axis not in ends:
            ends[axis] = _read_ends(folder / _ENDS[axis], about["rows"])
        size = (about["rows"] if axis is None else int(ends[axis][-1]), *record["shape"])
        file = folder / f"{name}.bin"
        if not file.is_file() or file.stat().st_size != math.prod(size) * dtype.itemsize:
            raise _damaged(file)
        rows = StoredRows(np.memmap(file, dtype, "r", shape=size), ends.get(axis))
        return Feature(rows, axis, record["padding"], record["dtype"])

    inputs = {name: feature(name, record) for name, record in about["inputs"].items()}
    if TOKENS in ends and ends[TOKENS][-1] != about["tokens"]:
        raise _damaged(path)
    targets = None
    if about["targets"] == _PER_ITEM:
        targets = _read_targets(folder / "targets.npy", about["rows"] // about["group"])
    elif about["targets"]:
        targets = feature("targets", about["targets"])
    return Encoded(inputs, targets, group=about["group"]), about


def _in_this_format(about: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A description of the first format, in which inputs were int32 token ids, in the present one.

    That format has no version number, but the key "pad_values".
    """
    names, paddings = map(str, about["features"]), about["pad_values"]
    targets = {"none": {}, "rows": _PER_ITEM, "tokens": _record(Feature([], padding=IGNORED))}
    return about | {
        "inputs": {name: _record(Feature([], padding=paddings.get(name))) for name in names},
        "targets": targets.get(about["targets"], {"axis": about["targets"]}),
        "rows": len(map_array(folder / _ENDS[TOKENS], (None,), np.integer, DataError)),
    }


def _record(feature: Feature) -> dict[str, Any]:
    """The description of a feature in tokens.json; "shape" is that of a position or of a row."""
    shape = feature[0].shape[feature.axis is not None :] if len(feature) else ()
    about = {"axis": feature.axis, "padding": feature.padding, "dtype": feature.dtype}
    return about | {"shape": list(shape)}


def _is_record(record: Any) -> bool:
    return (
        isinstance(record, dict)
        and record.keys() == {"axis", "padding", "dtype", "shape"}
        and record["axis"] in [None, *MASKS]
        and isinstance(record["padding"], int | float)
        and isinstance(record["dtype"], str)
        and record["dtype"] in _DTYPES
        and isinstance(record["shape"], list)
        and all(isinstance(size, int) and size > 0 for size in record["shape"])
    )


def _read_ends(path: Path, rows: int) -> np.ndarray:
    """Where each row ends among the concatenated ones (rows,)."""
    ends = np.array(map_array(path, (rows,), np.integer, DataError))
    if ends[-1] < 1 or (np.diff(ends, prepend=0) < 0).any():
        raise _damaged(path)
    return ends


def _read_targets(path: Path, items: int) -> Feature:
    """Targets of items, with entries of any shape; these alone are read into memory."""
    for rank in range(3):
        with suppress(DataError):
            array = map_array(path, (items, *[None] * rank), np.number, DataError)
            return Feature.of_array(np.array(array))
    raise _damaged(path)


def _damaged(path: Path) -> DataError:
    return DataError(
        f"{path} is damaged or missing. Write the tokens again: ft.data.write_tokens(parts, model, "
        "folder)."
    )


def write_folder(
    parts: Iterable[Examples], model: Any, folder: Path, max_length: int | None, options: dict
) -> None:
    """Encodes parts one after the other into the files of an empty folder.

    Raises:
        DataError: As for `write_tokens`.
        DataTypeError: As for `write_tokens`.
    """
    lengths: dict[str, list[np.ndarray]] = {}  # by axis, for each part
    targets: list[np.ndarray] = []
    first: Encoded | None = None
    records: dict[str, Any] = {}
    rows, largest = 0, 0
    with ExitStack() as stack:
        files: dict[str, BinaryIO] = {}
        for part in _read(parts):
            if not isinstance(part, Examples):
                raise DataTypeError(
                    f"write_tokens takes an iterable of Examples, found a {type(part).__name__} in "
                    "it. Give a single Examples as a list: [examples]."
                )
            encoded = part.encoded(model, max_length, **options)
            if encoded.draw is not None:
                raise DataError(
                    f"{model.task.name} draws other rows in each epoch, which files cannot hold. "
                    "Fit on one part after the other instead."
                )
            found = _records(encoded)
            if first is None:
                first, records = encoded, found
            if found["targets"] != records["targets"]:
                raise DataError(
                    f"{part.name} differs from the parts before it: either all have labels or none."
                )
            if found != records:
                raise DataError(
                    f"{part.name} differs from the parts before it in the inputs that it has, or "
                    "in their dtype or shape. Write it into another folder."
                )
            features = dict(encoded.inputs)
            if records["targets"] == _PER_ITEM:
                targets.append(joined(encoded.targets))
            elif records["targets"]:
                features["targets"] = encoded.targets
            for name, feature in features.items():
                if name not in files:
                    files[name] = stack.enter_context(open(folder / f"{name}.bin", "wb"))
                values = joined(feature)
                files[name].write(np.ascontiguousarray(values))
                if name == "input_ids":
                    largest = max(largest, int(values.max(initial=0)))
            for axis, of_axis in lengths_by_axis(features).items():
                lengths.setdefault(axis, []).append(of_axis)
            rows += len(encoded)
    if first is None:
        raise DataError("There are no parts, so there is nothing to tokenize.")
    ends = {axis: np.cumsum(np.concatenate(of_axis)) for axis, of_axis in lengths.items()}
    for axis, of_axis in ends.items():
        np.save(folder / _ENDS[axis], of_axis)
    if targets:
        np.save(folder / "targets.npy", np.concatenate(targets))
    about = {
        "made_by": maker(model),
        "params": model.task.shared_params(model.config),
        **records,
        "group": first.group,
        "max_length": max_length or model.max_length,
        "rows": rows,
        "tokens": int(ends[TOKENS][-1]) if TOKENS in ends else 0,
        "largest_id": largest,
    }
    (folder / _ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def _records(encoded: Encoded) -> dict[str, Any]:
    """The descriptions of the inputs and the targets for tokens.json."""
    targets = {}
    if encoded.targets is not None:
        targets = _PER_ITEM if encoded.targets.axis is None else _record(encoded.targets)
    return {
        "inputs": {name: _record(feature) for name, feature in sorted(encoded.inputs.items())},
        "targets": targets,
    }


def _read(parts: Iterable[Examples]) -> Iterator[Examples]:
    try:
        yield from parts
    except OSError as error:  # of the caller's files, not of those that are written here
        raise DataError(f"A part of the corpus cannot be read: {error}.") from error


def maker(model: Any) -> dict[str, Any]:
    """Returns what rows depend on besides the texts: task, tokenizer and labels of the model."""
    tokenizer = model.tokenizer.backend_tokenizer.to_str()
    if model.target_tokenizer is not model.tokenizer:
        tokenizer += model.target_tokenizer.backend_tokenizer.to_str()
    return {
        "task": model.task.name,
        "tokenizer": hashlib.sha256(tokenizer.encode()).hexdigest()[:16],
        "labels": None if model.labels is None else list(model.labels),
    }
