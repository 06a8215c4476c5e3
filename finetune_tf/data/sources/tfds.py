"""Examples from TensorFlow Datasets."""

import functools
import socket
import threading
import urllib.parse
import urllib.request
from typing import Any

import numpy as np

from finetune_tf.base.extras import require_tensorflow
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
from finetune_tf.data.sources.paths import column_at, feature_at
from finetune_tf.errors import DataError, DataTypeError
from finetune_tf.messages import one_line

NETWORK_TIMEOUT = 3.0
READ_AT_ONCE = 1024


@names_checked(also=synonyms_of_other_columns)
def from_tfds(
    builder: Any,
    split: str = "train",
    text: str | None = None,
    text_pair: str | None = None,
    label: LabelColumns | None = "label",
    data_dir: str | None = None,
    labels: GivenLabels | None = None,
    problem_type: ProblemType | None = None,
    on_invalid: OnInvalid = "raise",
    **columns: str,
) -> Examples:
    """Reads a data set of TensorFlow Datasets.

    A prepared data set is read from disk. Otherwise it is downloaded; the network is tried first,
    because TFDS itself would retry for minutes.

    Args:
        builder: A name such as "glue/sst2", or a `tfds.core.DatasetBuilder`.
        split: The split, or a part of it such as "train[:10%]".
        text: Feature of the texts; by default the only one that holds texts.
        text_pair: Feature of the second texts.
        label: Feature of the labels; or several features of 0 and 1, one for each label; or None,
            also for a test split whose labels are hidden (-1).
        data_dir: Folder of the prepared data sets; by default that of TFDS.
        labels: Names of the labels in the order of their numbers; by default those of the data
            set's own `ClassLabel`, or else they are inferred from the feature.
        problem_type: As in Hugging Face configs; by default it is inferred from the feature.
        on_invalid: What to do about rows in which a text or label is missing or wrong: "raise" an
            error that names them, or "drop" them and say how many there are.
        **columns: Other columns by their names in `data.columns.COLUMNS`, where further columns can
            be added: `image=` (images), `video=` (videos), `tokens=` and `tags=` (lists of
            words and of their labels), or `question=`, `context=` and `answers=`. These are read
            instead of the texts, and those with labels of their own instead of `label`.

    Raises:
        DataError: If there is no such data set, split or feature, it is not prepared and cannot
            be downloaded, or a text or label is missing or wrong.
        MissingExtraError: If TensorFlow Datasets cannot be imported.
    """
    require_tensorflow("from_tfds reads data with", "tensorflow_datasets")
    if isinstance(builder, str):
        builder = _find(builder, data_dir)
    if not hasattr(builder, "info"):
        raise DataTypeError(
            f"from_tfds takes a name such as 'glue/sst2' or a DatasetBuilder, found "
            f"{type(builder).__name__}."
        )
    if split is None or isinstance(split, int):
        raise DataTypeError(f"split= is a name such as 'train', found {split!r}.")
    name = f"{builder.info.full_name} {split}"
    features = builder.info.features
    wanted = Wanted(text, text_pair, label, columns, labels, problem_type, text is not None)
    if text is None and wanted.reads("text"):
        wanted.text = _only_text(features, text_pair, name)
    needed = [
        column_at(argument, column, list(features), name).base
        for argument, column in wanted.arguments
    ]

    @functools.cache
    def values() -> dict[str, list]:
        _prepare(builder)
        return _read(builder, split, needed)

    # The values are read last, so that a wrong column is found before a download.
    return build_examples(
        available=features,
        read=lambda column: values()[column],
        wanted=wanted,
        name=name,
        dropped=Dropped(name, on_invalid),
        class_names=_class_names(features, wanted.label_column),
    )


def _find(name: str, data_dir: str | None) -> Any:
    import tensorflow_datasets as tfds

    if ":" in name and not network_reachable():  # A community data set: its index is online.
        raise DataError(f"{name!r} cannot be looked up without a network.")
    try:
        return tfds.builder(name, data_dir=data_dir)
    except ValueError as error:  # Also that of an unknown name, followed by all known ones.
        raise DataError(
            f"TensorFlow Datasets cannot find {name!r}: {str(error).splitlines()[0]} Check the "
            "name, or pass the data_dir= in which the data set lies."
        ) from None


def _prepare(builder: Any) -> None:
    if not builder.is_prepared():
        _download_and_prepare(builder)
    if not builder.info.splits:  # prepared by another process since this builder was made
        builder.info.read_from_directory(builder.data_dir)


def _download_and_prepare(builder: Any) -> None:
    # The data sets of TFDS itself are downloaded; a user's own builder may read local files.
    downloads = type(builder).__module__.startswith("tensorflow_datasets.")
    if downloads and not network_reachable():
        name = builder.info.full_name.rpartition("/")[0]
        raise DataError(
            f"{name} is not prepared ({builder.data_dir} holds nothing) and there is no network "
            "to download it. Where there is one, prepare it with "
            f"tfds.builder({name!r}, data_dir=FOLDER).download_and_prepare(), copy FOLDER here "
            "and pass data_dir=FOLDER; or read your own files with from_csv or from_jsonl."
        )
    try:
        builder.download_and_prepare()
    except Exception as error:
        if builder.is_prepared():  # another process was faster
            builder.info.read_from_directory(builder.data_dir)
        elif _is_of_files(error):
            raise DataError(
                f"{builder.info.full_name} cannot be prepared in {builder.data_dir} "
                f"({one_line(str(error))[:300]}). Make room there, or pass another data_dir=FOLDER."
            ) from None
        else:
            raise


def _is_of_files(error: BaseException | None) -> bool:
    """Whether an error, or one of its causes, is about reading or writing files."""
    import tensorflow as tf

    while error is not None:
        if isinstance(error, OSError | tf.errors.OpError):
            return True
        error = error.__cause__ or error.__context__
    return False


def network_reachable(timeout: float = NETWORK_TIMEOUT) -> bool:
    """Whether the internet (or its proxy) can be reached within `timeout` seconds."""
    proxy = urllib.request.getproxies().get("https")
    url = urllib.parse.urlsplit(proxy or "https://storage.googleapis.com")
    connected = threading.Event()

    def connect() -> None:
        try:
            with socket.create_connection((url.hostname, url.port or 443), timeout=timeout):
                connected.set()
        except OSError:
            return

    # In a separate thread, because looking up a host name has no timeout.
    attempt = threading.Thread(target=connect, daemon=True)
    attempt.start()
    attempt.join(timeout)
    return connected.is_set()


def _only_text(features: Any, text_pair: str | None, name: str) -> str:
    import tensorflow as tf

    texts = [
        column
        for column, feature in features.items()
        if feature.shape == () and feature.tf_dtype == tf.string and column != text_pair
    ]
    if len(texts) != 1:
        found = ", ".join(repr(column) for column in texts) or "none"
        raise DataError(
            f'Say which feature of {name} holds the texts: text="…". Text features are: {found}.'
        )
    return texts[0]


def _read(builder: Any, split: str, needed: list[str]) -> dict[str, list]:
    """The values of the needed features, one for each row.

    Images are the bytes of their files, videos are arrays (frames, height, width, channels).
    """
    import tensorflow_datasets as tfds

    features = builder.info.features
    images = [column for column in needed if isinstance(features[column], tfds.features.Image)]
    videos = [column for column in needed if isinstance(features[column], tfds.features.Video)]
    decoders = {column: tfds.decode.SkipDecoding() for column in images}
    try:
        rows = builder.as_dataset(split=split, decoders=decoders or None)
    except ValueError as error:
        splits = ", ".join(builder.info.splits)
        raise DataError(
            f"{builder.info.full_name} has no split {split!r}; there are: {splits}."
        ) from error
    columns: dict[str, list] = {column: [] for column in needed}
    rows = rows.map(lambda row: {column: row[column] for column in needed})
    for batch in rows.ragged_batch(READ_AT_ONCE):
        for column, values in batch.items():
            if column in images:
                columns[column] += values.numpy().tolist()
            elif column in videos:
                columns[column] += map(_as_array, values)
            else:
                columns[column] += _as_rows(values)
    return columns


def _as_array(clip: Any) -> np.ndarray:
    return (clip.to_tensor() if hasattr(clip, "to_tensor") else clip).numpy()


def _as_rows(values: Any) -> list:
    """One Python value for each row; a dict if the feature consists of several."""
    import tensorflow as tf

    if isinstance(values, dict):
        parts = {name: _as_rows(part) for name, part in values.items()}
        return [dict(zip(parts, row, strict=True)) for row in zip(*parts.values(), strict=True)]
    is_ragged = isinstance(values, tf.RaggedTensor)
    return _decode(values.to_list() if is_ragged else values.numpy().tolist())


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(item) for item in value]
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise DataError(
            f"A text of the data set is not UTF-8: {value[:40]!r}. Prepare it with texts in UTF-8."
        ) from None


def _class_names(features: Any, label: Any) -> list[str] | None:
    feature = None if label is None else feature_at(features, label)
    return getattr(getattr(feature, "feature", feature), "names", None)
