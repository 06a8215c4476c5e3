"""Frames of clips of any kind, and prepared clips as rows of a data set.

Files with one image after another (GIF, WebP, PNG) are decoded with Pillow, files of videos (MP4,
AVI, WebM and so on) with PyAV.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from finetune_tf.errors import DataError, MissingExtraError
from finetune_tf.images.decoding import check_file, decode, levels_of, undecodable
from finetune_tf.images.prepared import CheckedImages, PreparedImages
from finetune_tf.images.processor import ImageProcessor

# How the files begin that Pillow decodes; a JPEG or BMP file is a clip of one frame.
_OF_PILLOW = (b"GIF8", b"\x89PNG", b"\xff\xd8\xff", b"BM")

#: The number of frames of a clip to the numbers of those that are read.
NumbersOf = Callable[[int], list[int]]


def frame_numbers(count: int, frames: int, at_most: bool = False) -> list[int]:
    """Returns which frames of a clip a model reads: evenly over the clip, with both ends.

    Frame i of n is number i (count - 1) / (n - 1) of the clip, rounded; of a single frame, it is
    the middle one.

    Args:
        count: Frames of the clip.
        frames: Frames that the model reads, n.
        at_most: As for `decode_clip`.

    Raises:
        DataError: If the clip has fewer frames than the model reads.

    Example:
        >>> from finetune_tf.images.clips import frame_numbers
        >>> frame_numbers(25, 5), frame_numbers(25, 1), frame_numbers(3, 3)
        ([0, 6, 12, 18, 24], [12], [0, 1, 2])
    """
    if not count:
        raise DataError("it has no frames")
    if at_most:
        frames = min(frames, count)
    if count < frames:
        raise DataError(
            f"it has {count:,} frame{'s' * (count != 1)}, but the model reads {frames:,} of each "
            "clip; load the model with fewer, as in ft.load(…, frames=…), or use longer clips"
        )
    if frames == 1:
        return [count // 2]
    # In integers, so that halves are always rounded up.
    return [(2 * i * (count - 1) + frames - 1) // (2 * (frames - 1)) for i in range(frames)]


def decode_clip(clip: Any, frames: int, at_most: bool = False) -> list[np.ndarray]:
    """Decodes the frames of a clip that a model reads; see `frame_numbers`.

    Args:
        clip: A path, the bytes of a file, an array (frames, H, W, 3) uint8, or a list of images as
            for `decode`.
        frames: How many frames.
        at_most: Whether a clip with fewer frames is read completely; otherwise it is an error.

    Returns:
        Arrays (H, W, 3) uint8 of one size.

    Raises:
        DataError: If it is no clip, is damaged, has too few frames, or its images differ in size.
            The message does not name the clip.
        MissingExtraError: If the package that decodes such files is not installed.

    Example:
        >>> from finetune_tf.images.clips import decode_clip
        >>> [frame.shape for frame in decode_clip(np.zeros((9, 4, 6, 3), "uint8"), frames=2)]
        [(4, 6, 3), (4, 6, 3)]
    """
    numbers_of = partial(frame_numbers, frames=frames, at_most=at_most)
    if isinstance(clip, np.ndarray):
        check_clip(clip)
    if isinstance(clip, np.ndarray | list | tuple):
        found = [_of_frame(n, clip[n], decode) for n in numbers_of(len(clip))]
    else:
        with _opened(clip) as content:
            found = (_of_images if _is_of_pillow(content) else _of_video)(content, numbers_of)
    sizes = {frame.shape[:2] for frame in found}
    if len(sizes) > 1:
        listed = " and ".join(f"{height} x {width}" for height, width in sorted(sizes)[:2])
        raise DataError(
            f"its images differ in size, for example {listed} pixels; all frames of a clip have one"
        )
    return found


def check_clip(clip: Any) -> None:
    """Checks that a clip can be opened; its frames are decoded when they are needed.

    Args:
        clip: As for `decode_clip`.

    Raises:
        DataError: If it is no clip. The message does not name it.
        MissingExtraError: As for `decode_clip`.
    """
    if isinstance(clip, np.ndarray):
        if clip.ndim != 4 or clip.shape[-1] not in (1, 3, 4) or not clip.size:
            raise DataError(
                f"it is an array of the shape {clip.shape}, but (frames, height, width, 3) is "
                "needed"
            )
        check_file(clip[0])
    elif isinstance(clip, list | tuple):
        if not clip:
            raise DataError("it is an empty list, without frames")
        for number, image in enumerate(clip):
            _of_frame(number, image, check_file)
    else:
        with _opened(clip) as content:
            opened = _pillow(content) if _is_of_pillow(content) else _video(content)
            opened.close()


def _of_frame(number: int, image: Any, function: Callable[[Any], Any]) -> Any:
    """The result of a function of one image of a list; its errors name the image."""
    try:
        return function(image)
    except (DataError, OSError) as error:
        reason = "there is no such file" if isinstance(error, OSError) else str(error)
        named = f" {str(image)!r}" if isinstance(image, str | Path) else ""
        raise DataError(f"its frame {number}{named}: {reason}") from None


class PreparedClips(PreparedImages):
    """The rows (T, H, W, 3) uint8 that a processor makes of clips.

    Args:
        clips: What `decode_clip` accepts, one for each row.
        processor: As for `PreparedImages`.
        title: As for `PreparedImages`.
        frames: T.
    """

    noun = "video"

    def __init__(
        self,
        clips: Sequence[Any],
        processor: ImageProcessor,
        title: Callable[[int], str],
        frames: int,
    ) -> None:
        self._frames = frames
        super().__init__(clips, processor, title)

    def _shape_of_row(self) -> tuple[int, ...]:
        return (self._frames, *super()._shape_of_row())

    def _prepare(self, clip: Any) -> np.ndarray:
        return np.stack([self._processor(frame) for frame in decode_clip(clip, self._frames)])


class CheckedClips(CheckedImages):
    """A column of clips that were checked, with the prepared frames of each."""

    @property
    def prepared_class(self) -> type[PreparedImages]:
        """The class of the prepared rows."""
        return PreparedClips


def _opened(clip: Any) -> io.BufferedIOBase:
    """The content of a file, or of bytes."""
    try:
        file = io.BytesIO(clip) if isinstance(clip, bytes | bytearray) else open(clip, "rb")  # noqa: SIM115
    except FileNotFoundError:
        raise DataError("there is no such file") from None
    except IsADirectoryError:
        raise DataError("it is a folder, not a file") from None
    if not file.read(1):
        file.close()
        raise DataError("the file is empty, 0 bytes")
    file.seek(0)
    return file


def _is_of_pillow(file: io.BufferedIOBase) -> bool:
    start = file.read(12)
    file.seek(0)
    return start.startswith(_OF_PILLOW) or (start[:4], start[8:]) == (b"RIFF", b"WEBP")


def _pillow(file: io.BufferedIOBase) -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtraError(
            "Animated images are decoded with Pillow, which is not installed: pip install "
            "'finetune-tf[images]'."
        ) from None
    try:
        return Image.open(file)
    except Exception as error:  # decoders of damaged files raise errors of many kinds
        raise undecodable(error, "a clip") from None


def _of_images(file: io.BufferedIOBase, numbers_of: NumbersOf) -> list[np.ndarray]:
    found = []
    try:
        with _pillow(file) as image:
            for number in numbers_of(getattr(image, "n_frames", 1)):
                image.seek(number)
                found.append(levels_of(image))
    except (DataError, MissingExtraError):
        raise
    except Exception as error:  # decoders of damaged files raise errors of many kinds
        raise undecodable(error, "a clip") from None
    return found


def _video(file: io.BufferedIOBase) -> Any:
    """The opened container of a video."""
    try:
        import av
    except ImportError:
        raise MissingExtraError(
            "Videos are decoded with PyAV, which is not installed: pip install "
            "'finetune-tf[video]'. Arrays, lists of images and animated GIF files need only Pillow."
        ) from None
    file.seek(0)
    try:
        container = av.open(file)
    except Exception as error:  # decoders of damaged files raise errors of many kinds
        raise undecodable(error, "a clip") from None
    if not container.streams.video:
        container.close()
        raise DataError("the file has no video stream")
    return container


def _of_video(file: io.BufferedIOBase, numbers_of: NumbersOf) -> list[np.ndarray]:
    try:
        with _video(file) as container:
            count = sum(bool(packet.size) for packet in container.demux(video=0))
        found, total = _picked(file, numbers_of(count))
        if total != count:  # some packets had no frame, or several
            found, _ = _picked(file, numbers_of(total))
    except (DataError, MissingExtraError):
        raise
    except Exception as error:  # decoders of damaged files raise errors of many kinds
        raise undecodable(error, "a clip") from None
    return found


def _picked(file: io.BufferedIOBase, numbers: list[int]) -> tuple[list[np.ndarray], int]:
    """The frames with these numbers, and how many there are in all."""
    found, total = {}, 0
    with _video(file) as container:
        for total, frame in enumerate(_decoded(container), start=1):
            if total - 1 in numbers:
                turns = round(getattr(frame, "rotation", 0) / 90) % 4  # of phones held upright
                found[total - 1] = np.rot90(frame.to_ndarray(format="rgb24"), turns)
    return [np.ascontiguousarray(found[n]) for n in numbers if n in found], total


def _decoded(container: Any) -> Iterator[Any]:
    container.streams.video[0].thread_type = "AUTO"
    return container.decode(video=0)
