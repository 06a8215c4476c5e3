"""Examples from the datasets library of Hugging Face."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from finetune_tf.base.labels import ProblemType
from finetune_tf.base.spelling import names_checked
from finetune_tf.data.columns import synonyms_of_other_columns
from finetune_tf.data.examples import Examples
from finetune_tf.data.sources.building import (
    GivenLabels,
    LabelColumns,
    OnInvalid,
    Wanted,
    build_examples,
)
from finetune_tf.data.sources.dropping import Dropped
from finetune_tf.data.sources.paths import feature_at
from finetune_tf.errors import DataError, DataTypeError, MissingExtraError


@names_checked(also=synonyms_of_other_columns)
def from_huggingface(
    dataset: Any,
    split: str | None = None,
    text: str | None = None,
    text_pair: str | None = None,
    label: LabelColumns | None = "label",
    labels: GivenLabels | None = None,
    problem_type: ProblemType | None = None,
    config: str | None = None,
    on_invalid: OnInvalid = "raise",
    **columns: str,
) -> Examples:
    """Makes examples from a Hugging Face data set.

    Args:
        dataset: A `datasets.Dataset`, a `DatasetDict`, or the name of a data set to load.
        split: Which split, where there are several, such as "train".
        text: Column of the texts.
        text_pair: Column of the second texts.
        label: Column of the labels; or several columns of 0 and 1, one for each label; or None.
        labels: Names of the labels in the order of their numbers; by default those of the data
            set's own `ClassLabel`, or else they are inferred from the column.
        problem_type: As in Hugging Face configs; by default it is inferred from the column.
        config: Which configuration of a named data set, such as "sst2" of "glue".
        on_invalid: What to do about rows in which a text or label is missing or wrong: "raise" an
            error that names them, or "drop" them and say how many there are.
        **columns: Other columns by their names in `data.columns.COLUMNS`, where further columns can
            be added: `image=` (images), `video=` (videos), `tokens=` and `tags=` (lists of
            words and of their labels), or `question=`, `context=` and `answers=`. These are read
            instead of the texts, and those with labels of their own instead of `label`.

    Raises:
        DataError: If the data set cannot be loaded, a split or column is missing, or a text or
            label is missing or wrong.
        DataTypeError: If `dataset` is not such a data set, or is a streamed one.
        MissingExtraError: If a name is given and the package datasets is not installed.
    """
    wanted = Wanted(
        text or "text", text_pair, label, columns, labels, problem_type, text is not None
    )
    name = dataset if isinstance(dataset, str) else "the data set"
    if isinstance(dataset, str):
        dataset = _load(dataset, config)
    if isinstance(dataset, dict):
        if split not in dataset:
            asked = "Say which split to read" if split is None else f"There is no split {split!r}"
            raise DataError(f'{asked} of {name}: split="…", one of {", ".join(dataset)}.')
        dataset = dataset[split]
        name = f"{name} {split}"
    # A streamed data set gives its columns one by one, perhaps with the rows in another order each.
    is_streamed = hasattr(dataset, "__iter__") and not hasattr(dataset, "__len__")
    is_table = hasattr(dataset, "__getitem__") and not is_streamed
    if getattr(dataset, "column_names", None) is None or not is_table:
        raise DataTypeError(
            f"from_huggingface takes a datasets.Dataset, found {type(dataset).__name__}. "
            "Load it without streaming=True; for other tables there is from_pandas."
        )
    dataset = _plain(dataset)
    return build_examples(
        available=dataset.column_names,
        read=lambda column: _read(dataset, column, name),
        wanted=wanted,
        name=name,
        dropped=Dropped(name, on_invalid),
        class_names=_class_names(dataset, wanted.label_column),
    )


def _load(name: str, config: str | None) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError(
            f"from_huggingface({name!r}) loads by name with the package datasets, which is not "
            "installed. Install the extra 'datasets': pip install 'finetune_tf[datasets]'."
        ) from error
    try:
        return datasets.load_dataset(name, config)
    except (OSError, ValueError) as error:  # No network, no such data set or configuration.
        raise DataError(
            f"The data set {name!r} (config={config!r}) cannot be loaded: "
            f"{str(error).partition(chr(10))[0]}. Without a network, pass "
            "datasets.load_from_disk(FOLDER) instead, or read files with from_csv or from_jsonl."
        ) from error


def _plain(dataset: Any) -> Any:
    """The data set without a format such as "tf", which hides columns and makes bytes of texts."""
    form = getattr(dataset, "format", None) or {}
    if form.get("type") == "custom":  # a transform, which may be what the user wants to read
        return dataset
    hidden = set(dataset.column_names).difference(form.get("columns") or dataset.column_names)
    return dataset.with_format(None) if form.get("type") or hidden else dataset


def _read(dataset: Any, column: str, name: str) -> list:
    try:
        return list(_undecoded(dataset, column)[column])
    except KeyError:
        raise DataError(
            f"{name} has a column {column!r}, but the transform that was set for it leaves it out. "
            "Pass the data set without it: dataset.with_format(None)."
        ) from None


def _undecoded(dataset: Any, column: str) -> Any:
    """The data set with the files of images or videos instead of all their pixels in memory."""
    feature = (getattr(dataset, "features", None) or {}).get(column)
    if type(feature).__name__ not in ("Image", "Video") or not getattr(feature, "decode", False):
        return dataset
    return dataset.cast_column(column, dataclasses.replace(feature, decode=False))


def _class_names(dataset: Any, label: str | None) -> Sequence[str] | None:
    """The names of a `ClassLabel`, of the one inside a list, or of the one at a path."""
    feature = feature_at(getattr(dataset, "features", None) or {}, label or "")
    return getattr(getattr(feature, "feature", feature), "names", None)
