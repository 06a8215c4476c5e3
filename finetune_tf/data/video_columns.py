"""The check of a column of videos, and what makes two videos the same."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np

from finetune_tf.data.checks import CheckedRows
from finetune_tf.data.image_columns import (
    Medium,
    checked_media,
    image_in_folder,
    image_key,
    may_be_image,
    unwrapped,
)
from finetune_tf.images import CheckedClips
from finetune_tf.images.clips import check_clip


def check_videos(values: list, column: str, rows: CheckedRows) -> list:
    """Checks that each value of a column is a video: a path, bytes, an array, or a list of images.

    Files are opened; that all of their frames can be decoded is found when a model reads them.

    Args:
        values: One value for each row.
        column: Name of the column.
        rows: The examples.

    Returns:
        The same values, which are not checked again. Dicts with "bytes" or "path", as `datasets`
        has them, become those, and tensors become arrays.

    Raises:
        DataError: If a value or a file is missing, or a file is not a video.
        DataTypeError: If a value is something else.
        MissingExtraError: If the package that decodes such files is not installed.
    """
    if isinstance(values, CheckedClips):
        return values
    return CheckedClips(checked_media([_unwrapped(v) for v in values], column, rows, _VIDEO))


def video_in_folder(value: Any, folder: Path) -> Any:
    """Returns the value of a column of videos with relative paths joined to a folder.

    Args:
        value: What a row of a file has for its video: a path, or a list of the paths of images.
        folder: The folder of that file.

    Example:
        >>> from pathlib import Path
        >>> from finetune_tf.data.video_columns import video_in_folder
        >>> video_in_folder(["a/1.png", "a/2.png"], Path("/data"))
        ['/data/a/1.png', '/data/a/2.png']
    """
    if isinstance(value, list | tuple):
        return [image_in_folder(image, folder) for image in value]
    return image_in_folder(value, folder)


def video_key(video: Any) -> Hashable:
    """Returns what is equal for equal videos: the hash of a file or an array, or of each image.

    Args:
        video: As for `images.decode_clip`.
    """
    if isinstance(video, list | tuple):
        return tuple(map(image_key, video))
    return image_key(video)


def _unwrapped(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [unwrapped(image) for image in value]
    return unwrapped(value)


def _may_be_video(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(may_be_image, value))
    if isinstance(value, np.ndarray):
        return value.ndim == 4
    return isinstance(value, str | Path | bytes | bytearray)


_VIDEO = Medium(
    noun="a video",
    expected=(
        "videos: paths, the bytes of files, arrays (frames, height, width, 3) uint8, or lists of "
        "images, one list for each video"
    ),
    may_be=_may_be_video,
    check=check_clip,
    file="a video",
)
