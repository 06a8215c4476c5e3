"""Decodes images of any kind to RGB levels, (height, width, 3) uint8."""

import io
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from finetune_tf.errors import DataError, MissingExtraError
from finetune_tf.messages import one_line

#: The most pixels of an image, as in Pillow; larger ones would fill the memory.
MAX_PIXELS = 178_956_970
# What complete files of a format contain close to their end, and what begins the last part before
# that; a JPEG file may hold a complete thumbnail in front of its image.
_ENDS = {"JPEG": (b"\xff\xda", b"\xff\xd9"), "PNG": (b"IDAT", b"IEND")}
_TAIL = 1 << 20


def decode(image: Any) -> np.ndarray:
    """Decodes an image as Hugging Face's `load_image` does: rotated as its EXIF data say, RGB.

    Grey values are repeated for the three channels, and transparency is dropped. Of 16 bits, the 8
    highest remain. Numbers of 32 bits have no range that is known, so they are an error.

    Args:
        image: A path, the bytes of a file, an array of levels (H, W), (H, W, 1), (H, W, 3) or
            (H, W, 4) uint8, or an image of Pillow.

    Returns:
        (H, W, 3) uint8.

    Raises:
        DataError: If it is no image, is damaged or truncated, is too large, or has numbers of 32
            bits in place of levels. The message does not name the image.
        MissingExtraError: If Pillow is not installed.

    Example:
        >>> from finetune_tf.images import decode
        >>> decode(np.zeros((4, 6), "uint8")).shape
        (4, 6, 3)
    """
    if isinstance(image, np.ndarray):
        return _of_array(image)
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtraError(
            "Images are decoded with Pillow, which is not installed: pip install "
            "'finetune-tf[images]'."
        ) from None
    if isinstance(image, Image.Image):
        return levels_of(image)
    source = io.BytesIO(image) if isinstance(image, bytes | bytearray) else Path(image)
    if isinstance(source, io.BytesIO) and not image:
        raise DataError("the file is empty, 0 bytes")
    try:
        with warnings.catch_warnings():
            # Pillow warns from half of its limit on.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(source) as opened:
                return levels_of(opened)
    except DataError:
        raise
    except Image.DecompressionBombError:
        raise DataError(f"it has more than {MAX_PIXELS:,} pixels") from None
    except FileNotFoundError:
        raise DataError("there is no such file") from None
    except IsADirectoryError:
        raise DataError("it is a folder, not a file") from None
    except Exception as error:  # decoders of damaged files raise errors of many kinds
        size = Path(image).stat().st_size if isinstance(source, Path) else len(image)
        if not size:
            raise DataError("the file is empty, 0 bytes") from None
        raise undecodable(error) from None


def check_file(image: Any) -> None:
    """Checks that an image can be opened and that its file is complete.

    JPEG, PNG and WebP files are not decoded for that, since their ends can be found; files of other
    formats are.

    Args:
        image: As for `decode`.

    Raises:
        DataError: If the file is empty, of an unknown kind, too large, or cut off; or if an array
            has another dtype or shape than levels.
    """
    if isinstance(image, np.ndarray):
        _check_array(image)
        return
    if not isinstance(image, bytes | bytearray | str | Path):
        return
    with open(image, "rb") if isinstance(image, str | Path) else io.BytesIO(image) as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        if not size:
            raise DataError("the file is empty, 0 bytes")
        kind = _opened_kind(file)
        if kind not in _ENDS:
            return
        file.seek(max(size - _TAIL, 0))
        tail = file.read()
        last_part, end = map(tail.rfind, _ENDS[kind])
        if end <= last_part and not _can_be_decoded(file):
            raise DataError(f"the {kind} file is cut off: its end is missing")


def _can_be_decoded(file: BinaryIO) -> bool:
    """Whether an image is complete though its end was not found, as in front of a video."""
    from PIL import Image

    file.seek(0)
    try:
        with Image.open(file) as opened:
            opened.load()
    except Exception:  # decoders of damaged files raise errors of many kinds
        return False
    return True


def _opened_kind(file: BinaryIO) -> str:
    """The format of an open file, such as "JPEG"; formats without a known end are decoded."""
    try:
        from PIL import Image
    except ImportError:
        return ""  # the error follows when the image is decoded
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file) as opened:
                if opened.format not in (*_ENDS, "WEBP"):  # Pillow opens complete WebP files only
                    opened.load()
                file.seek(0)
                return opened.format
    except Image.DecompressionBombError:
        raise DataError(f"it has more than {MAX_PIXELS:,} pixels") from None
    except Exception as error:  # decoders of damaged files raise errors of many kinds
        raise undecodable(error) from None


def undecodable(error: Exception, expected: str = "an image") -> DataError:
    """Returns the error for a file that a decoder rejects.

    Args:
        error: The error of the decoder.
        expected: What the file should be.
    """
    if type(error).__name__ == "UnidentifiedImageError":
        return DataError(f"it is not {expected} of a known format")
    return DataError(f"it is not {expected} that can be decoded ({one_line(str(error))})")


def levels_of(image: Any) -> np.ndarray:
    """Returns the levels of an image of Pillow; see `decode`.

    Raises:
        DataError: If it has numbers of 32 bits.
    """
    from PIL import ImageOps

    # Some files of 16 bits have the mode of 32 bits as well.
    has_16_bits = image.mode.startswith("I;16") or (
        image.mode == "I" and image.format in ("PNG", "PPM")
    )
    if image.mode in ("I", "F") and not has_16_bits:
        raise DataError(
            f"it has the mode {image.mode!r} of Pillow, numbers of 32 bits whose range is unknown; "
            "make levels from 0 to 255 of them: Image.fromarray(array.astype('uint8'))"
        )
    image = ImageOps.exif_transpose(image)
    if has_16_bits:
        # Pillow would clip 16 bits at 255.
        wide = np.asarray(image).astype("int64")
        return _of_array((wide.clip(0, 65535) >> 8).astype("uint8"))
    return np.array(image.convert("RGB"))


def _of_array(array: np.ndarray) -> np.ndarray:
    _check_array(array)
    array = array[:, :, None] if array.ndim == 2 else array
    return np.ascontiguousarray(np.broadcast_to(array[:, :, :3], (*array.shape[:2], 3)))


def _check_array(array: np.ndarray) -> None:
    if array.dtype != np.uint8:
        raise DataError(
            f"it is an array of {array.dtype}, but levels from 0 to 255 in uint8 are needed; write "
            "(array * 255).round().astype('uint8') for values from 0 to 1"
        )
    channels = array.shape[2:] or (1,)
    if array.ndim not in (2, 3) or channels[0] not in (1, 3, 4) or not array.size:
        raise DataError(
            f"it is an array of the shape {array.shape}, but (height, width), optionally with 1, 3 "
            "or 4 channels as the last axis, is needed"
        )
