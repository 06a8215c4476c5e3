"""Examples from a folder of images, with a folder for each class."""

import os
from dataclasses import dataclass
from pathlib import Path

from finetune_tf.base.paths import absolute
from finetune_tf.base.spelling import names_checked
from finetune_tf.data.examples import Examples
from finetune_tf.data.places import Places
from finetune_tf.data.sources.building import OnInvalid, Wanted, build_examples
from finetune_tf.data.sources.dropping import Dropped
from finetune_tf.errors import DataError

#: Endings of the files that are read, in any case.
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")


# What the folders of splits are called.
_SPLITS = {name: "train" for name in ("train", "training")}
_SPLITS |= {name: "validation" for name in ("val", "valid", "validation", "dev")}
_SPLITS |= {name: "test" for name in ("test", "testing")}


@dataclass(frozen=True)
class FilePlaces(Places):
    """Files of a folder; `numbers` are their paths, relative to the folder.

    Example:
        >>> from finetune_tf.data.sources.image_folder import FilePlaces
        >>> FilePlaces(["red/1.jpg", "blue/2.jpg"]).name(1)
        'blue/2.jpg'
    """

    unit: str = "file"
    counted_from: int = 1

    def name(self, row: int) -> str:
        """The path of one file."""
        return str(self.numbers[row])

    def title(self, row: int) -> str:
        """The path of one file, also as the beginning of a sentence."""
        return self.name(row)


@names_checked
def from_image_folder(
    folder: str | Path,
    labels: bool = True,
    name: str | None = None,
    on_invalid: OnInvalid = "raise",
) -> Examples:
    """Reads the images of a folder; the label of an image is the name of its class folder.

    Args:
        folder: A folder with a folder for each class, whose images may be in further folders. Files
            and folders whose names begin with a dot, and files with other endings than those of
            images, are not read.
        labels: Whether class folders are labels; with False, all images below the folder are read
            without labels.
        name: Name of the data in messages; by default that of the folder.
        on_invalid: What to do about files that are no complete images: "raise" an error that names
            them, or "drop" them and say how many there are.

    Returns:
        Examples with the columns "image" (paths) and "label", sorted by path.

    Raises:
        DataError: If there is no such folder, there are no images or fewer than two classes, its
            folders are those of splits, or a file is not an image.

    Example:
        >>> photos = ft.data.from_image_folder(images)
        >>> list(photos.labels)
        ['blue', 'red']
    """
    return media_of_folder(folder, "image", ENDINGS, labels, name, on_invalid)


def media_of_folder(
    folder: str | Path,
    column: str,
    endings: tuple[str, ...],
    labels: bool,
    name: str | None,
    on_invalid: OnInvalid,
) -> Examples:
    """Reads the images or videos of a folder with a folder for each class.

    Args:
        folder: As for `from_image_folder`.
        column: The column of the files, "image" or "video".
        endings: Endings of the files that are read.
        labels: As for `from_image_folder`.
        name: As for `from_image_folder`.
        on_invalid: As for `from_image_folder`.
    """
    root = absolute(folder)
    if not root.is_dir():
        raise DataError(f"There is no folder {root}.")
    paths = files_below(root, endings)
    name = root.name if name is None else name
    columns = {column: [str(path) for path in paths]}
    if labels:
        columns["label"] = [path.relative_to(root).parts[0] for path in paths]
        _check_classes(root, paths, set(columns["label"]), column)
    elif not paths:
        raise DataError(f"{root} has no {column}s: files that end in {', '.join(endings)}.")
    return build_examples(
        available=columns,
        read=columns.__getitem__,
        wanted=Wanted(None, None, "label" if labels else None, {column: column}),
        name=name,
        dropped=Dropped(name, on_invalid),
        places=FilePlaces([path.relative_to(root).as_posix() for path in paths]),
    )


def files_below(root: Path, endings: tuple[str, ...]) -> list[Path]:
    """Returns the files with these endings below a folder, sorted by path.

    Args:
        root: The folder.
        endings: The endings, in lower case.
    """
    found = []
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = [each for each in folders if not each.startswith(".")]
        found += [
            Path(folder) / file
            for file in files
            if file.lower().endswith(endings) and not file.startswith(".")
        ]
    return sorted(found)


def folders_of_splits(root: Path) -> dict[str, Path]:
    """Returns the folders of a data set that has one for each split, by "train" and so on.

    Args:
        root: The folder of the data set.

    Returns:
        The folders; empty if `root` has other folders than those of splits, such as classes.
    """
    folders = [path for path in root.iterdir() if path.is_dir() and path.name[0] != "."]
    splits = {_SPLITS.get(path.name.lower(), ""): path for path in sorted(folders)}
    return splits if splits and "" not in splits else {}


def _check_classes(root: Path, paths: list[Path], classes: set[str], noun: str) -> None:
    loose = [path for path in paths if path.parent == root]
    if loose or not paths:
        found = f"{noun}s directly in it, such as {loose[0].name!r}" if loose else f"no {noun}s"
        raise DataError(
            f"{root} must have a folder for each class with its {noun}s, found {found}. "
            f"{noun.capitalize()}s without labels are read with from_{noun}_folder(folder, "
            "labels=False)."
        )
    if splits := folders_of_splits(root):
        raise DataError(
            f"{root} has folders of splits and not of classes: "
            f"{', '.join(sorted(path.name for path in splits.values()))}. Read each of them, for "
            f"example {str(next(iter(splits.values())))!r}."
        )
    if len(classes) < 2:
        raise DataError(
            f"{root} has only one class folder with {noun}s, {next(iter(classes))!r}; a classifier "
            "needs at least two."
        )
