"""Examples from a folder of videos, with a folder for each class."""

from pathlib import Path

from finetune_tf.base.spelling import names_checked
from finetune_tf.data.examples import Examples
from finetune_tf.data.sources.building import OnInvalid
from finetune_tf.data.sources.image_folder import media_of_folder

#: Endings of the files that are read, in any case.
ENDINGS = (".mp4", ".m4v", ".mov", ".avi", ".webm", ".mkv", ".mpg", ".mpeg", ".gif", ".webp")


@names_checked
def from_video_folder(
    folder: str | Path,
    labels: bool = True,
    name: str | None = None,
    on_invalid: OnInvalid = "raise",
) -> Examples:
    """Reads the videos of a folder; the label of a video is the name of its class folder.

    Args:
        folder: A folder with a folder for each class, whose videos may be in further folders. Files
            and folders whose names begin with a dot, and files with other endings than those of
            videos, are not read.
        labels: Whether class folders are labels; with False, all videos below the folder are read
            without labels.
        name: Name of the data in messages; by default that of the folder.
        on_invalid: What to do about files that are no videos: "raise" an error that names them, or
            "drop" them and say how many there are.

    Returns:
        Examples with the columns "video" (paths) and "label", sorted by path.

    Raises:
        DataError: If there is no such folder, there are no videos or fewer than two classes, its
            folders are those of splits, or a file is not a video.
        MissingExtraError: If the package that decodes such files is not installed.

    Example:
        >>> clips = ft.data.from_video_folder(videos)
        >>> list(clips.labels)
        ['left', 'right']
    """
    return media_of_folder(folder, "video", ENDINGS, labels, name, on_invalid)
