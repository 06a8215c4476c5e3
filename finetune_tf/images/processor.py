"""The preparation of images that belongs to a checkpoint: sizes, crops, and normalisation.

It reads preprocessor_config.json as the image processors of transformers do (those on Pillow), and
computes the same pixels.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from finetune_tf.base.arguments import Number, shown
from finetune_tf.errors import CheckpointError, DataError
from finetune_tf.images.decoding import MAX_PIXELS, decode
from finetune_tf.images.defaults import CLASSES, COMMON, SQUARE

#: The file of a checkpoint with the settings of its image processor.
PREPROCESSOR = "preprocessor_config.json"

_FINITE, _ABOVE_0 = Number(-math.inf), Number(0, above_low=True)


@dataclass(frozen=True)
class ImageProcessor:
    """Prepares images for a checkpoint: `processor(image)` is (height, width, 3) uint8.

    Rescaling and normalisation are the first layer of the model, `pixels`, so the levels remain
    between 0 and 255.

    Attributes:
        kind: The class in transformers.
        values: The complete settings, with the keys of preprocessor_config.json.
    """

    kind: str
    values: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], default_kind: str, where: str = "preprocessor_config.json"
    ) -> Self:
        """Reads the content of preprocessor_config.json; an empty one has the defaults of a class.

        Args:
            config: The content of the file.
            default_kind: The class of transformers if the file names none.
            where: Name of the file in messages.

        Raises:
            CheckpointError: If the class or a value is not supported.

        Example:
            >>> from finetune_tf.images import ImageProcessor
            >>> ImageProcessor.from_config({"size": 96}, "ViTImageProcessor").output_size
            (96, 96)
        """
        named = config.get("image_processor_type") or config.get("feature_extractor_type")
        kind = str(named or default_kind).replace("FeatureExtractor", "ImageProcessor")
        kind = kind.removesuffix("Fast").removesuffix("Pil")
        if kind not in CLASSES:
            raise CheckpointError(
                f"{where} names the image processor {shown(kind)}, which is not supported; "
                f"supported are: {', '.join(CLASSES)}."
            )
        values = {**COMMON, **CLASSES[kind]}
        known = {*values, "crop_size", "crop_pct", "do_pad"}
        given = {k: v for k, v in config.items() if v is not None and k in known}
        values |= given
        values["size"] = _size(values["size"], kind, where)
        if values["do_center_crop"]:
            values["crop_size"] = _size(values.get("crop_size", SQUARE), "", where)
            if "height" not in values["crop_size"]:
                raise CheckpointError(
                    f"{where}: 'crop_size' is a number of pixels, or has the keys height and "
                    f"width; found {shown(values['crop_size'])}."
                )
        is_scaled = values["do_resize"] and kind == "ConvNextImageProcessor"
        if is_scaled and "height" in values["size"]:
            raise CheckpointError(
                f"{where}: the 'size' of {kind} has the key shortest_edge, found "
                f"{shown(values['size'])}."
            )
        if values.get("do_pad"):
            raise CheckpointError(f"{where} has do_pad true, which is not supported.")
        processor = cls(kind, values)
        processor._check(where)
        return processor

    def _check(self, where: str) -> None:
        for key in ("image_mean", "image_std"):
            value = self.values[key]
            rule = _ABOVE_0 if key == "image_std" else _FINITE
            is_list = isinstance(value, list | tuple) and len(value) == 3
            if not is_list or not all(map(rule.accepts, value)):
                raise CheckpointError(
                    f"{where}: {key!r} must be a list of 3 numbers"
                    f"{' above 0' if rule is _ABOVE_0 else ''}, found {shown(value)}."
                )
        for key in ("rescale_factor", "crop_pct"):
            if not _ABOVE_0.accepts(self.values.get(key, 1)):
                raise CheckpointError(
                    f"{where}: {key!r} must be a number above 0, found {shown(self.values[key])}."
                )
        if self.values["resample"] not in range(6):
            raise CheckpointError(
                f"{where}: 'resample' must be a number of Pillow from 0 to 5, found "
                f"{shown(self.values['resample'])}."
            )
        self.output_size  # noqa: B018 - raises an error if the settings do not fix it

    @property
    def output_size(self) -> tuple[int, int]:
        """(height, width) of the prepared images.

        Raises:
            CheckpointError: If the settings do not make all images equal in size.
        """
        values, size = self.values, self.values["size"]
        if values["do_center_crop"]:
            return (values["crop_size"]["height"], values["crop_size"]["width"])
        if self.kind == "ConvNextImageProcessor" and "shortest_edge" in size:
            return (size["shortest_edge"], size["shortest_edge"])
        if "height" in size:
            return (size["height"], size["width"])
        raise CheckpointError(
            f"The image processor keeps the proportions of images (size {size}) and does not crop "
            "them, so they would differ in size. Load the checkpoint with image_size=…."
        )

    def resized(self, image_size: int | tuple[int, int]) -> Self:
        """Returns a processor for another size, which scales and crops in proportion.

        A cut of other proportions than before is filled by every image: one that keeps its
        proportions is scaled until it covers the cut, and never padded.

        Args:
            image_size: A number for square images, or (height, width).
        """
        height, width = (image_size,) * 2 if isinstance(image_size, int) else tuple(image_size)
        values = dict(self.values)
        factors = {
            "height": height / self.output_size[0],
            "width": width / self.output_size[1],
        }
        factors["shortest_edge"] = max(factors.values())
        if "shortest_edge" in values["size"] and not values["do_center_crop"]:
            if height != width:
                raise CheckpointError(
                    f"{self.kind} makes square images, found image_size=({height}, {width})."
                )
            values["size"] = {"shortest_edge": height}
        elif values["do_center_crop"]:
            old = values["size"]
            values["size"] = {key: max(round(old[key] * factors[key]), 1) for key in old}
            values["crop_size"] = {"height": height, "width": width}
        else:
            values["size"] = {"height": height, "width": width}
        return replace(self, values=values)

    def to_config(self) -> dict[str, Any]:
        """Returns the content of preprocessor_config.json."""
        return {"image_processor_type": self.kind, **self.values}

    @property
    def normalization(self) -> dict[str, Any]:
        """The arguments of `architectures.PixelNormalization`."""
        values = self.values
        mean, std = values["image_mean"], values["image_std"]
        is_normalized = values["do_normalize"]
        return {
            "image_size": self.output_size,
            "scale": values["rescale_factor"] if values["do_rescale"] else 1.0,
            "mean": tuple(map(float, mean)) if is_normalized else (0.0, 0.0, 0.0),
            "stddev": tuple(map(float, std)) if is_normalized else (1.0, 1.0, 1.0),
        }

    def __call__(self, image: Any) -> np.ndarray:
        """Prepares one image.

        Args:
            image: As for `decode`.

        Returns:
            (height, width, 3) uint8, of the size `output_size`.

        Raises:
            DataError: If the image cannot be decoded, or has another size and is not resized.
        """
        levels, values = decode(image), self.values
        if values["do_resize"]:
            levels = self._resize(levels)
        if values["do_center_crop"]:
            levels = center_crop(
                levels, values["crop_size"]["height"], values["crop_size"]["width"]
            )
        if levels.shape[:2] != self.output_size:
            raise DataError(
                f"it has {levels.shape[0]} x {levels.shape[1]} pixels, but the checkpoint does not "
                f"resize images and expects {self.output_size[0]} x {self.output_size[1]}"
            )
        return levels

    def _resize(self, levels: np.ndarray) -> np.ndarray:
        values, size = self.values, self.values["size"]
        if self.kind == "ConvNextImageProcessor":
            edge = size["shortest_edge"]
            if edge >= 384:
                return self._to(levels, edge, edge)
            scaled = _shortest(levels.shape, int(edge / values["crop_pct"]))
            return center_crop(self._to(levels, *scaled), edge, edge)
        if "shortest_edge" in size:
            return self._to(levels, *_shortest(levels.shape, size["shortest_edge"]))
        return self._to(levels, size["height"], size["width"])

    def _to(self, levels: np.ndarray, height: int, width: int) -> np.ndarray:
        from PIL import Image

        if levels.shape[:2] == (height, width):
            return levels
        if height * width > MAX_PIXELS:
            raise DataError(
                f"it has {levels.shape[0]:,} x {levels.shape[1]:,} pixels; with a shortest edge of "
                f"{min(height, width)} it would have more than {MAX_PIXELS:,}"
            )
        image = Image.fromarray(levels)
        return np.array(image.resize((width, height), resample=self.values["resample"]))


def center_crop(levels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Cuts out the centre of an image; a smaller image is padded with zeros on all sides.

    Args:
        levels: (H, W, 3).
        height: Height of the result.
        width: Width of the result.

    Example:
        >>> from finetune_tf.images.processor import center_crop
        >>> center_crop(np.ones((5, 2, 3), "uint8"), 3, 4)[:, :, 0].tolist()
        [[0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 1, 0]]
    """
    found_height, found_width = levels.shape[:2]
    # The roundings are those of transformers.
    tops = []
    for found, wanted in ((found_height, height), (found_width, width)):
        before = -(-(max(wanted, found) - found) // 2)  # rows of padding
        tops.append(((found - wanted) // 2 + before, before, max(wanted, found)))
    (top, above, full_height), (left, beside, full_width) = tops
    if above or beside or (full_height, full_width) != (found_height, found_width):
        padded = np.zeros((full_height, full_width, levels.shape[2]), levels.dtype)
        padded[above : above + found_height, beside : beside + found_width] = levels
        levels = padded
    top, left = max(top, 0), max(left, 0)
    return levels[top : top + height, left : left + width]


def _shortest(shape: tuple, edge: int) -> tuple[int, int]:
    """(height, width) with a shortest edge of `edge` and the proportions of an image."""
    height, width = shape[:2]
    if width <= height:
        return (int(edge * height / width), edge)
    return (edge, int(edge * width / height))


def _size(size: Any, kind: str, where: str) -> dict[str, int]:
    """Returns a size as a dict; older files have a number."""
    if isinstance(size, int) and not isinstance(size, bool):
        keeps = bool(kind) and "shortest_edge" in CLASSES[kind]["size"]
        size = {"shortest_edge": size} if keeps else {"height": size, "width": size}
    keys = set(size) if isinstance(size, Mapping) else set()
    is_known = keys in ({"height", "width"}, {"shortest_edge"})
    if not is_known or not all(type(v) is int and 0 < v < 65_536 for v in size.values()):
        raise CheckpointError(
            f"{where}: a size is a number of pixels, or has the keys height and width, or "
            f"shortest_edge; found {shown(size)}."
        )
    return dict(size)
