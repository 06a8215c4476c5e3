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
        DataError: If there is no such folder, there are no images or fewer than two classes, or
            a file is not an image.

    Example:
        >>> photos = ft.data.from_image_folder(images)
        >>> list(photos.labels)
        ['blue', 'red']
    """
    root = absolute(folder)
    if not root.is_dir():
        raise DataError(f"There is no folder {root}.")
    paths = sorted(_image_paths(root))
    name = root.name if name is None else name
    columns = {"image": [str(path) for path in paths]}
    if labels:
        columns["label"] = [path.relative_to(root).parts[0] for path in paths]
        _check_classes(root, paths, set(columns["label"]))
    elif not paths:
        raise DataError(f"{root} has no images: files that end in {', '.join(ENDINGS)}.")
    return build_examples(
        available=columns,
        read=columns.__getitem__,
        wanted=Wanted(None, None, "label" if labels else None, {"image": "image"}),
        name=name,
        dropped=Dropped(name, on_invalid),
        places=FilePlaces([path.relative_to(root).as_posix() for path in paths]),
    )


def _image_paths(root: Path) -> list[Path]:
    found = []
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = [each for each in folders if not each.startswith(".")]
        found += [
            Path(folder) / file
            for file in files
            if file.lower().endswith(ENDINGS) and not file.startswith(".")
        ]
    return found


def _check_classes(root: Path, paths: list[Path], classes: set[str]) -> None:
    loose = [path for path in paths if path.parent == root]
    if loose or not paths:
        found = f"images directly in it, such as {loose[0].name!r}" if loose else "no images"
        raise DataError(
            f"{root} must have a folder for each class with its images, found {found}. Images "
            "without labels are read with from_image_folder(folder, labels=False)."
        )
    if len(classes) < 2:
        raise DataError(
            f"{root} has only one class folder with images, {next(iter(classes))!r}; a classifier "
            "needs at least two."
        )
