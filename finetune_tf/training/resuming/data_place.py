"""Where a fit is in its data, and what data a fit can return to exactly.

- Batches of `Examples.batches` have a cursor, which can be moved to any batch of any epoch.
- Arrays and other datasets are read again from the beginning of the broken epoch, without a step.
  A shuffled tf.data.Dataset gives each iterator another order, so as many iterators are opened as
  in the interrupted run. On JAX, NumPy's global generator shuffles arrays, so it returns to the
  beginning of the epoch while they are read again.
- What depends on anything else, such as a Python generator, is refused.
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from finetune_tf.base.keras_fits import (
    FitData,
    Opened,
    RunningFit,
    batches_of_epoch,
    begin_at_step,
    data_of,
    operations_in,
    parents_of,
    shuffle_seeds,
    steps_per_epoch,
    validation_of,
)
from finetune_tf.data.cursor import Cursor
from finetune_tf.errors import DataError

# Datasets that have one element for each of those that they are made of, in the same order.
_ONE_BY_ONE = ("Map", "Prefetch", "Options", "Take", "Skip", "AssertCardinality", "Model", "Repeat")
# Kinds of operations that draw random numbers from a state of their own.
_RANDOM = ("Random", "TruncatedNormal", "ParameterizedTruncatedNormal", "Multinomial")
_MOST_ROWS = 200_000  # of a column that is hashed completely
_MOST_PREPARED = 64  # rows of a column whose rows are prepared when they are read, such as images
_MOST_BYTES = 2**28  # of an array that is hashed completely


class DataPlace:
    """Where a fit is in its training data and its validation data.

    Args:
        fit: The running fit, before its first epoch.

    Raises:
        DataError: If the fit could not return to a place in its data exactly.
    """

    def __init__(self, fit: RunningFit) -> None:
        self._fit = fit
        self._data = data_of(fit.data)
        self._refuse_inexact(self._data)
        self._steps = steps_per_epoch(fit.data)
        self._base, self._can_seek = _with_cursor(self._data.dataset)
        if self._steps is not None and batches_of_epoch(fit.data) is not None:
            raise DataError(
                f"Resume cannot continue a fit with steps_per_epoch={self._steps} on data that "
                "ends. Leave steps_per_epoch out, or repeat the dataset without end: "
                "dataset.repeat()."
            )
        self._opened = Opened(fit.data)
        self._opened_by_validation: Opened | None = None
        self._validation_opened_before = 0
        cursor = getattr(self._base, "cursor", None)
        self._first = self._start = 0 if cursor is None else _batches_before(cursor)

    def begin_epoch(self, used: int) -> None:
        """Notes where an epoch begins, before its first batch is read.

        Args:
            used: The number of its batches that were used before the fit was interrupted.
        """
        cursor = getattr(self._base, "cursor", None)
        if cursor is not None:
            self._start = _batches_before(cursor) - (used if self._can_seek else 0)

    def fingerprint(self) -> dict[str, Any]:
        """Returns what identifies the data, to compare it with that of the interrupted run."""
        validation = self._fit.validation_data
        cursor = getattr(self._base, "cursor", None)
        return {
            "kind": self._data.kind,
            "batches in an epoch": batches_of_epoch(self._fit.data),
            "steps_per_epoch": self._steps,
            "seed": None if cursor is None else cursor.seed,
            "shuffle": [str(self._data.shuffle), *self._data.shuffle_seeds],
            "content": _content(self._base or self._data.dataset, self._data.arrays),
            "validation": None if validation is None else _content_of_given(validation),
        }

    def state_dict(self, epoch: int, used: int | None) -> dict[str, Any]:
        """Returns the place.

        Args:
            epoch: The number of finished epochs.
            used: The number of batches that are used in the epoch that runs; None between epochs.
        """
        batches = batches_of_epoch(self._fit.data)
        reads = used or 0
        if self._steps is not None:
            reads += epoch * self._steps
        is_in_use = used is not None or self._steps is not None  # the last iterator is read further
        if used is not None and used == batches and self._opened.is_lazy:
            is_in_use = False  # nothing is left to read, so it will not be opened again
        name, keys, *rest = self._opened.numpy_state
        state = {
            "opened": self._opened.count - is_in_use,
            "reads": reads,
            "batches": batches,
            "first": self._first,
            "numpy": [name, keys.tolist(), *rest] if self._data.is_drawn and reads else None,
        }
        cursor = getattr(self._base, "cursor", None)
        if cursor is not None:
            state["cursor"] = cursor.state_dict()
            is_over = self._steps is None and (used is None or used == batches)
            if not is_over:
                # Not where the cursor is: batches are read ahead, also those of a repetition.
                begin = self._start if self._steps is None else self._first
                epoch, batch = divmod(begin + reads * self._can_seek, cursor.batch_count)
                state["cursor"] |= {"epoch": epoch, "batch": batch}
        watched = self._opened_by_validation
        state["validation opened"] = (
            self._validation_opened_before if watched is None else watched.count
        )
        if (base := _validation_base(self._fit.validation_data)) is not None:
            state["validation cursor"] = base.cursor.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any], used: int | None) -> None:
        """Makes the fit, which is about to begin, continue at a place from `state_dict`.

        Args:
            state: The place.
            used: As for `state_dict`.
        """
        reads, self._first = state["reads"], state["first"]
        cursor = getattr(self._base, "cursor", None)
        if self._can_seek:
            reads = 0
        else:
            self._opened.open(self._fit.data, state["opened"])
        if cursor is not None:
            cursor.load_state_dict(state["cursor"])
        self._validation_opened_before = state["validation opened"]
        if (base := _validation_base(self._fit.validation_data)) is not None:
            base.cursor.load_state_dict(state["validation cursor"])

        def prepare(iterator: Any) -> None:
            now = np.random.get_state()
            if state["numpy"] is not None:
                np.random.set_state(tuple(state["numpy"]))
            for _ in range(reads):
                next(iterator)
            if state["numpy"] is not None:
                np.random.set_state(now)

        begin_at_step(self._fit.data, used or 0, prepare, state["batches"])

    def watch_validation(self, model: keras.Model) -> None:
        """Counts the iterators over the validation data; called when an evaluation begins."""
        data = validation_of(model)
        if data is None or self._opened_by_validation is not None:
            return
        read = data_of(data)
        self._refuse_inexact(read)
        self._opened_by_validation = Opened(data)
        if read.dataset is not None and _with_cursor(read.dataset)[0] is None:
            self._opened_by_validation.open(data, self._validation_opened_before)
        else:
            self._opened_by_validation.count = self._validation_opened_before

    def _refuse_inexact(self, data: FitData) -> None:
        """Raises an error for data whose order cannot be repeated."""
        advice = (
            "Make the batches with examples.batches(model, shuffle=True, seed=0), whose order "
            "depends on (seed, epoch) alone."
        )
        if data.kind == "arrays":
            if data.is_drawn and data.shuffle == "batch":
                raise DataError(
                    "Resume cannot continue a fit on arrays with shuffle='batch' on JAX, where "
                    "each batch draws from NumPy's global generator. Pass shuffle=True. Or: "
                    f"{advice}"
                )
            if data.shuffle and not data.is_drawn and data.shuffle_seeds == (0, 0):
                raise DataError(
                    "Resume cannot continue a fit on arrays with shuffle=True, whose order differs "
                    "in each process. Call keras.utils.set_random_seed(0) before fit, or pass "
                    f"shuffle=False. Or: {advice}"
                )
            return
        if data.kind == "PyDataset" and hasattr(data.dataset, "cursor"):
            if data.shuffle:
                raise DataError(
                    "The order of these batches is that of their cursor, but with shuffle=True, "
                    "Keras draws another one. Pass shuffle=False to fit."
                )
            return
        if data.kind != "dataset":
            raise DataError(
                f"Resume cannot continue a fit on a Python {data.kind}, whose state it does not "
                f"know. {advice}"
            )
        strategy = getattr(self._fit.model, "distribute_strategy", None)
        devices = getattr(strategy, "num_replicas_in_sync", 1)  # JAX has no strategy
        for dataset in _ancestors(data.dataset):
            name = _kind_of(dataset)
            seeds = shuffle_seeds(dataset)
            if seeds == (0, 0):
                raise DataError(
                    f"Resume cannot continue a fit on a tf.data.Dataset with {name}() without a "
                    f"seed, whose order differs in each process. Give it a seed. Or: {advice}"
                )
            if seeds is not None and devices > 1:
                raise DataError(
                    f"Resume cannot continue a fit on {devices} devices on a tf.data.Dataset with "
                    f"{name}(). {advice}"
                )
            if dataset.options().deterministic is False:
                raise DataError(
                    "Resume cannot continue a fit on a tf.data.Dataset with the option "
                    "deterministic=False. Leave the option out."
                )
            for operation in sorted(operations_in(dataset)):
                if operation in ("PyFunc", "EagerPyFunc"):
                    raise DataError(
                        "Resume cannot continue a fit on a tf.data.Dataset that calls Python "
                        f"functions ({name}), whose state it does not know. {advice}"
                    )
                if operation.startswith(_RANDOM):
                    raise DataError(
                        f"Resume cannot continue a fit on a tf.data.Dataset that draws random "
                        f"numbers with {operation} ({name}). Use operations of "
                        "tf.random.stateless_…, whose seed is an argument."
                    )


def _ancestors(dataset: Any) -> Iterator[Any]:
    """Yields a dataset and those that it is made of, but none below one with a cursor."""
    if hasattr(dataset, "cursor"):
        return
    yield dataset
    for parent in parents_of(dataset):
        yield from _ancestors(parent)


def _kind_of(dataset: Any) -> str:
    return type(dataset).__name__.strip("_").removesuffix("Dataset").lower()


def _with_cursor(dataset: Any) -> tuple[Any, bool]:
    """Returns the dataset with a cursor that a dataset is made of, and if its batches are those."""
    if dataset is None:
        return None, False
    if hasattr(dataset, "cursor"):
        return dataset, True
    name = type(dataset).__name__.strip("_").removeprefix("Parallel")
    for parent in parents_of(dataset):
        found, can_seek = _with_cursor(parent)
        if found is not None:
            return found, can_seek and name.startswith(_ONE_BY_ONE)
    return None, False


def _batches_before(cursor: Cursor) -> int:
    """Returns how many batches come before the place of a cursor, from the first epoch on."""
    return cursor.epoch * cursor.batch_count + cursor.batch


def _is_dataset(given: Any) -> bool:
    return hasattr(given, "cursor") or hasattr(given, "element_spec")


def _validation_base(given: Any) -> Any:
    return _with_cursor(given)[0] if _is_dataset(given) else None


def _content_of_given(validation: Any) -> Any:
    if _is_dataset(validation):
        return _content(_with_cursor(validation)[0] or validation, None)
    return _content(None, validation)


def _content(dataset: Any, arrays: Any) -> Any:
    """Returns a hash of the rows of batches or of arrays; the structure of another dataset."""
    if hasattr(dataset, "rows"):
        return _digest(dataset.rows)
    if dataset is not None:
        return f"{dataset.element_spec}, {int(dataset.cardinality())} elements"
    leaves = keras.tree.flatten(arrays)
    return _digest([leaf for leaf in leaves if hasattr(leaf, "shape")])


def _digest(columns: Iterable[Any]) -> str:
    """Returns a hash of rows; of more than can be hashed at once, of some in equal distances."""
    digest = hashlib.sha256()
    for rows in columns:
        rows = getattr(rows, "variants", [rows])[0]
        array = getattr(rows, "array", rows)
        count = len(rows)
        if isinstance(array, np.ndarray):
            size = int(np.prod(array.shape, dtype="int64"))
            distance = -(-size // _MOST_BYTES)
            part = np.ascontiguousarray(np.asarray(array[::distance]))
            digest.update(f"{array.shape} {part.dtype}".encode())
            digest.update(part)
            continue
        digest.update(f"{count} rows".encode())
        most = _MOST_ROWS if isinstance(rows, list | tuple) else _MOST_PREPARED
        for place in range(0, count, -(-count // most) or 1):
            row = np.ascontiguousarray(rows[place])
            digest.update(f"{row.shape} {row.dtype}".encode())
            digest.update(row)
    return digest.hexdigest()[:32]
